r"""Credit by how much likelier a token becomes once the gold answer is known (arXiv 2605.27934, GeneralThinker).

1. `r_t = log p(y_t | x with the gold answer revealed, y_<t) - log p(y_t | x, y_<t)` over the prefix: the tokens up to
   and including the `\boxed{` of the response's first complete box, or the whole response where it has none.
2. `d_t`: `r_t` minus its mean over the response's prefix, divided by one root mean square (at least 1e-6) over the
   prefixes of all processes.
3. `omega_t = clip(d_t - tau, -1, 1)`, with the `tau` for which `sum_t omega_t = 0` over the response's prefix.
4. `A_t = A + lambda |A| omega_t` on the prefix: tokens that serve the right answer gain, in right and wrong responses
   alike. Later tokens leave the loss: `A_t = 0`.
5. With `reward="likelihood"` the response's reward is `log p(gold and "}")` behind its own prefix, -30 where it has no
   box, and `A` that reward minus the group's mean, over its deviation plus 1e-4; else `A` is the trainer's.

As in the official code (shengminp/GeneralThinker), whose prompts and prefill `signals/gold.py` uses. `lambda` has no
published default: 0.5 is our own choice; below 1 no token's advantage changes sign. Ours as well: a box that never
closes is none, where the source cuts at it; later tokens still count where a loss divides by tokens; the group of step
5 is what of it is on this process; `target="answer"` cuts at what opens the response's final answer, for tasks that are
not answered in boxes. Without a gold answer `r = 0`, and `A` is the trainer's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Reads, Signals, check_choice
from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float

INVALID = -30.0
"""The source's reward of a response without a box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelihoodGainCredit:
    """A + `weight` |A| omega: lambda is a word of Python, so the option is called `weight`."""

    weight: float = 0.5
    reward: str = "given"
    target: str = "box"

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise InputError(f"expected weight of at least 0, the source's lambda, got {self.weight}")
        check_choice("reward", self.reward, ("given", "likelihood"))
        _ = self.reads  # which checks the target

    @property
    def reads(self) -> Reads:
        """The gain and where the answer is; for the likelihood as reward the gold answer and the group."""
        rewarding = {"gold", "group"} if self.reward == "likelihood" else set()
        return Reads(needs={"answer", "gain"} | rewarding, target=self.target)

    def prefix(self, signals: Signals) -> Bool[Tensor, "B R"]:
        """Counted tokens before the answer, what opens it included; all where there is none."""
        return signals.mask_BR & (signals.answer.answer_BR.cumsum(-1) == 0)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """The advantage, moved within the prefix towards what serves the gold answer."""
        prefix_BR = self.prefix(signals)
        gain_BR = torch.where(prefix_BR, signals.gain.gain_BR, 0.0)
        mean_B1 = gain_BR.sum(-1, keepdim=True) / prefix_BR.sum(-1, keepdim=True).clamp_min(1)
        centred_BR = torch.where(prefix_BR, gain_BR - mean_B1, 0.0)
        squares, count = signals.total(torch.stack([centred_BR.square().sum(), prefix_BR.sum()]))
        scale = (squares / count.clamp_min(1)).sqrt().clamp_min(1e-6)
        own_B = self._rewarded(signals, prefix_BR) if self.reward == "likelihood" else signals.advantages_B
        omega_BR = balanced_clip(centred_BR / scale, prefix_BR).to(own_B.dtype)
        moved_BR = own_B[:, None] + self.weight * own_B.abs()[:, None] * omega_BR
        return torch.where(signals.mask_BR & ~prefix_BR, 0.0, moved_BR)

    def _rewarded(self, signals: Signals, prefix_BR: Bool[Tensor, "B R"]) -> Float[Tensor, " B"]:
        """Advantages of the likelihood as reward; the trainer's own where no gold answer is known."""
        answered_B1 = signals.answer.answer_BR.any(-1, keepdim=True)
        last_BR = prefix_BR & (prefix_BR.flip(-1).cumsum(-1).flip(-1) == 1) & answered_B1
        start_B, behind_BR = signals.gold.score(last_BR, "", "}" if self.target == "box" else "")
        reached_B = torch.where(last_BR, behind_BR, 0.0).sum(-1)
        rewards_B = torch.where(last_BR.any(-1), reached_B, INVALID)
        same_BB = (signals.group.groups_B[:, None] == signals.group.groups_B).to(rewards_B.dtype)
        known_B = start_B.isfinite()
        rewards_B = torch.where(known_B, rewards_B, 0.0)
        count_B = same_BB.sum(-1)
        mean_B = same_BB @ rewards_B / count_B
        spread_B = (same_BB * (rewards_B - mean_B[:, None]).square()).sum(-1) / (count_B - 1).clamp_min(1)
        own_B = ((rewards_B - mean_B) / (spread_B.sqrt() + 1e-4)).to(signals.advantages_B.dtype)
        return torch.where(known_B, own_B, signals.advantages_B)


def balanced_clip(values_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """`clip(d - tau, -1, 1)` with each row's `tau` such that its counted values sum to 0; 0 off the mask.

    The sum falls as `tau` grows, from the count at `min d - 1` to minus the count at `max d + 1`: bisection.
    """
    values_BR = values_BR.double()
    low_B1 = values_BR.masked_fill(~mask_BR, torch.inf).amin(-1, keepdim=True) - 1
    high_B1 = values_BR.masked_fill(~mask_BR, -torch.inf).amax(-1, keepdim=True) + 1
    for _ in range(60):
        middle_B1 = (low_B1 + high_B1) / 2
        total_B1 = ((values_BR - middle_B1).clamp(-1, 1) * mask_BR).sum(-1, keepdim=True)
        low_B1 = torch.where(total_B1 > 0, middle_B1, low_B1)
        high_B1 = torch.where(total_B1 > 0, high_B1, middle_B1)
    clipped_BR = (values_BR - (low_B1 + high_B1) / 2).clamp(-1, 1)
    return torch.where(mask_BR, clipped_BR, 0.0).float()
