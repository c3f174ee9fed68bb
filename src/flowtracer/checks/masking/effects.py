"""What single tokens or words do to the answer as it stands: each is hidden in turn, and log p(answer) is measured.

One row of a batch for each: its columns of the attention mask are 0, so no later token attends to them in any layer or
head, and all keep their positions. What a hidden token itself predicts is left as it was. Nothing is generated, so a
dozen cost about a dozen forwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from flowtracer.model.forward import accepted
from flowtracer.text.span import Span
from flowtracer.trace.trace import Trace


def with_hub_effects(model: Any, trace: Trace, *, hubs: int = 12, max_tokens: int = 4096) -> Trace:
    """The trace, with the effects of its largest hubs."""
    found = trace.hubs(hubs)
    changes = hidden_effects(model, trace, [hub.unit.span for hub in found], max_tokens=max_tokens)
    measured = {hub.token: change for hub, change in zip(found, changes, strict=True)}
    return replace(trace, effects={**trace.effects, **measured})


@torch.inference_mode()
def hidden_effects(model: Any, trace: Trace, hidden: Sequence[int | Span], *, max_tokens: int = 4096) -> list[float]:
    """Change of log p(answer), in nats, when each of `hidden` alone is hidden from all later tokens.

    Args:
        model: The model that the trace is of, in evaluation mode.
        trace: Its answer is scored where it stands.
        hidden: Tokens, or runs of them, before the answer; the first excepted, which nothing could stand in for.
        max_tokens: Tokens of one forward; a longer trace runs alone.
    """
    start, stop = trace.answer.start, trace.answer.stop
    ids_1T = torch.from_numpy(trace.token_ids[:stop]).to(model.device)[None]
    answer_A = ids_1T[0, start:]
    # Behind no token, every row is what the model read: that is the reference.
    spans = [Span(start=place, stop=place + 1) if isinstance(place, int) else place for place in hidden]
    rows: list[Span | None] = [None, *spans]
    size = max(1, max_tokens // stop)
    found: list[torch.Tensor] = []
    for first in range(0, len(rows), size):
        chosen = rows[first : first + size]
        mask_BT = torch.ones(len(chosen), stop, dtype=torch.long, device=model.device)
        for row, span in enumerate(chosen):
            if span is not None:
                mask_BT[row, span.start : span.stop] = 0
        logits_BAV = model(
            input_ids=ids_1T.expand(len(chosen), -1),
            attention_mask=mask_BT,
            position_ids=torch.arange(stop, device=model.device)[None],
            **accepted(model.forward, {"use_cache": False, "logits_to_keep": len(answer_A) + 1}),
        ).logits[:, -len(answer_A) - 1 : -1]
        index_BA1 = answer_A[None, :, None].expand(len(chosen), -1, -1)
        found += logits_BAV.float().log_softmax(-1).gather(-1, index_BA1)[..., 0]
    reference_A, *changed_BA = found
    predicting_A = torch.arange(start - 1, stop - 1, device=model.device)
    return [
        float(((changed_A - reference_A) * (predicting_A >= span.stop)).sum())
        for span, changed_A in zip(spans, changed_BA, strict=True)
    ]
