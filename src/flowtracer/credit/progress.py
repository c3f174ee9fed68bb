"""Reward each segment by the progress it makes towards the gold answer (arXiv 2604.20659, GRPO-VPS).

1. Cut points `U`: the counted tokens whose predictive entropy is at least a percentile of their own response's.
2. `M` segments, of four points each on average and fewer than six, over which the points are spread evenly. A segment
   ends with its last point, the last segment with the response.
3. `C_k = p(gold | x, z_<=k)` behind segment `k`, and `C_0 = p(gold | x)`, all in one packed forward.
4. Every token of segment `k` gets `A_t = (r - mean r) + beta (C_k - C_{k-1})`, beta 1.2, with no division by the
   group's deviation.

Steps and constants are in the source's text. Not public: the percentile, and the text that asks for the answer. Our own
choices: the top tenth of the response's entropies, and `cue`, a line break and the tag that the tasks here ask for.
Without a gold answer every `C` is 0, which leaves the group's reward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import check_share, masked_quantile
from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float, Int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressCredit:
    """A = (r - mean r) + `weight` (C_k - C_{k-1}), segment by segment."""

    weight: float = 1.2
    cut_share: float = 0.1
    cuts_per_segment: int = 4
    segments: int = 5
    cue: str = "\n<answer>"

    def __post_init__(self) -> None:
        check_share("cut_share", self.cut_share)
        if self.cuts_per_segment < 1 or self.segments < 1:
            got = f"{self.cuts_per_segment} and {self.segments}"
            raise InputError(f"expected cuts_per_segment and segments of at least 1, got {got}")
        if not math.isfinite(self.weight):
            raise InputError(f"expected a finite weight of the progress, got {self.weight}")

    @property
    def reads(self) -> Reads:
        """The gold answer, the group, and logits."""
        return Reads(needs={"group", "logits", "gold"})

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """The reward above the group's mean, plus the progress of the token's segment."""
        rewards_B, baselines_B = signals.group.rewards_B, signals.group.baselines_B
        segments_BR, ends_BR = self.cut(signals)
        start_B, behind_BR = (log_p.exp() for log_p in signals.gold.score(ends_BR, self.cue))
        gains_BR = rewards_B.new_zeros(behind_BR.shape, dtype=torch.float32)
        for row in range(len(ends_BR)):
            reached_S = behind_BR[row][ends_BR[row]]
            gained_S = torch.diff(reached_S, prepend=start_B[row : row + 1])
            counted_R = signals.mask_BR[row]
            gains_BR[row, counted_R] = gained_S[segments_BR[row, counted_R]]
        advantages_BR = (rewards_B - baselines_B)[:, None] + self.weight * gains_BR
        return advantages_BR.to(signals.advantages_B.dtype)

    def cut(self, signals: Signals) -> tuple[Int[Tensor, "B R"], Bool[Tensor, "B R"]]:
        """The segment of each counted token, from 0, and the last token of each segment."""
        entropy_BR, mask_BR = signals.logits.entropy_BR, signals.mask_BR
        cut_BR = mask_BR & (entropy_BR >= masked_quantile(entropy_BR, mask_BR, 1 - self.cut_share))
        points_B1 = cut_BR.sum(-1, keepdim=True)
        count_B1 = (points_B1 / self.cuts_per_segment).round().long().clamp(1, self.segments)
        # Point j of n belongs to segment j M // n, and a token to that of the next point, or to the last.
        next_BR = torch.minimum(cut_BR.cumsum(-1) - cut_BR.long(), points_B1 - 1).clamp_min(0)
        segments_BR = next_BR * count_B1 // points_B1.clamp_min(1)
        ends_BR = torch.zeros_like(mask_BR)
        for row in range(len(mask_BR)):
            places = mask_BR[row].nonzero().squeeze(-1)
            of_place = segments_BR[row, places]
            closes = torch.ones_like(of_place, dtype=torch.bool)
            closes[:-1] = of_place[:-1] != of_place[1:]
            ends_BR[row, places] = closes
        return segments_BR, ends_BR
