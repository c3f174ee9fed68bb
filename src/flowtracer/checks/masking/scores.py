"""What strategies of credit think of the tokens of one response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from flowtracer.credit import Credit, Signals, make_credit, needs_of
from flowtracer.credit.together import read_together
from flowtracer.errors import InputError, TraceError
from flowtracer.shapes import Float, ndarray
from flowtracer.signals.reader import SignalReader
from flowtracer.signals.sampled import Sampled
from flowtracer.text.answer import AnswerPattern


class TokenScorer:
    """Scores responses by several strategies; those that read the same of the model do so together.

    Args:
        model: A causal transformers model.
        tokenizer: Its tokenizer.
        by: Names in `CREDITS`, or names with strategies of one's own.
        answer_pattern: How responses state their answer; None for the usual ways.

    Raises:
        InputError: A strategy that gives no token scores, or needs what a stored rollout has not.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        by: Sequence[str] | Mapping[str, Credit],
        answer_pattern: AnswerPattern | None = None,
    ) -> None:
        chosen = dict(by) if isinstance(by, Mapping) else {name: make_credit(name) for name in by}
        for name, credit in chosen.items():
            if not hasattr(credit, "scores"):
                raise InputError(f"expected strategies that score tokens, got {name!r}, which has no scores")
            if lacking := needs_of(credit) & {"group", "gold", "gain"}:
                raise InputError(f"expected strategies that one rollout is enough for, got {name!r}: {sorted(lacking)}")
        self.names = tuple(chosen)
        self._device = model.device
        self._readers = [
            (few, SignalReader(model, tokenizer, few, answer_pattern=answer_pattern)) for few in read_together(chosen)
        ]

    def scores(self, prompt: Sequence[int], response: Sequence[int], seed: int) -> dict[str, Float[ndarray, " R"]]:
        """Each strategy's scores of the response's tokens; `seed` is of those that draw.

        Raises:
            TraceError: A strategy has nothing to say about this response.
        """
        sampled = Sampled.padded([(list(prompt), list(response))], self._device)
        seeds_B = (seed,)
        found: dict[str, Float[ndarray, " R"]] = {}
        for few, reader in self._readers:
            readings, _ = reader.read(sampled, seeds_B)
            signals = Signals(
                mask_BR=sampled.response_mask_BR.bool(),
                advantages_B=torch.ones(1, device=self._device),
                seeds_B=seeds_B,
                readings=readings,
            )
            for name, scores_BR, speaks_B in few.scores(signals):
                if speaks_B is not None and not bool(speaks_B[0]):
                    message = f"expected scores by {name!r}, which has nothing to say about this rollout"
                    raise TraceError("no_scores", message)
                found[name] = scores_BR[0].double().cpu().numpy()
        return found
