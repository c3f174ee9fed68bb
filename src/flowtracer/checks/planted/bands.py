"""Signals of attention against planted truth, by band of layers: where in the model the picture is.

Early, middle and late third of the layers, and all of them; each signal looks at the head-mean attention of one band.
They are judged as strategies are. Position and random stand beside them: on a fair task they are at 0.5, or the task
gives the truth away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.checks.planted.cases import Case
from flowtracer.checks.planted.judge import Judgement, Key, judge
from flowtracer.flow import compute_flow
from flowtracer.model.capture import AttentionReader
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a signal may look at: one response as the model attends to it."""

    attention_TT: Float[Tensor, "T T"]
    """Head-mean attention over the layers of a band, strictly lower triangular."""
    question_T: Bool[Tensor, " T"]
    answer_T: Bool[Tensor, " T"]
    """Tokens of the answer."""
    seed: int


def flow_to_token(reading: Reading) -> Tensor:
    """Throughput, the flow ending in the answer's tokens."""
    return compute_flow(reading.attention_TT, reading.question_T, reading.answer_T).throughput_T


def flow_to_prediction(reading: Reading) -> Tensor:
    """Throughput, the flow ending where the answer's tokens are predicted."""
    return compute_flow(reading.attention_TT, reading.question_T, reading.answer_T.roll(-1)).throughput_T


def received(reading: Reading) -> Tensor:
    """Attention received from all tokens of the response up to the answer."""
    rows_T = ~reading.question_T
    rows_T[int(reading.answer_T.nonzero()[-1]) + 1 :] = False
    return reading.attention_TT[rows_T].sum(0)


def from_token(reading: Reading) -> Tensor:
    """Attention paid by the answer's tokens themselves."""
    return reading.attention_TT[reading.answer_T].sum(0)


def from_prediction(reading: Reading) -> Tensor:
    """Attention paid by the positions that predict the answer's tokens."""
    return reading.attention_TT[reading.answer_T.roll(-1)].sum(0)


def position(reading: Reading) -> Tensor:
    """How late a token stands: a control."""
    return torch.arange(len(reading.question_T), dtype=torch.float32)


def noise(reading: Reading) -> Tensor:
    """Seeded uniform draws: a control."""
    return torch.rand(len(reading.question_T), generator=torch.Generator().manual_seed(reading.seed))


Signal = Callable[[Reading], Tensor]

ATTENTION_SIGNALS: dict[str, Signal] = {
    "flow to token": flow_to_token,
    "flow to prediction": flow_to_prediction,
    "attention received": received,
    "attention from token": from_token,
    "attention from prediction": from_prediction,
}
CONTROLS: dict[str, Signal] = {"position": position, "random": noise}


class BandJudge:
    """Judges signals of attention on worked responses of one model.

    Raises:
        CaptureError: Its attention cannot be read.
    """

    def __init__(self, model: Any) -> None:
        self._reader = AttentionReader(
            model, layers=range(model.config.get_text_config(decoder=True).num_hidden_layers)
        )
        self._bands = layer_bands(len(self._reader.layers))
        self._device = model.device

    def judge(self, case: Case) -> dict[Key, Judgement]:
        """AUROC of every signal on one case."""
        ids_1T = torch.tensor([[*case.prompt_ids, *case.response_ids]], device=self._device)
        layers = self._reader.read(ids_1T)
        first = len(case.prompt_ids)
        question_T = torch.arange(ids_1T.shape[1]) < first
        answer_T = torch.from_numpy(np.pad(case.answer_R, (first, 0)))

        def judged(signal: Signal, attention_TT: Tensor) -> Judgement:
            reading = Reading(attention_TT=attention_TT, question_T=question_T, answer_T=answer_T, seed=case.seed)
            return judge(signal(reading)[first:].double().numpy(), case)

        found: dict[Key, Judgement] = {}
        for band, chosen in self._bands.items():
            attention_TT = _band_attention(layers, chosen)
            for name, signal in ATTENTION_SIGNALS.items():
                found[Key(name=name, by="signal", band=band)] = judged(signal, attention_TT)
        for name, signal in CONTROLS.items():
            found[Key(name=name, by="signal")] = judged(signal, attention_TT)
        return found


def layer_bands(layers: int) -> dict[str, range]:
    """The early, middle and late third of the layers, and all of them."""
    first, second = layers // 3, 2 * layers // 3
    return {
        "early": range(first),
        "middle": range(first, second),
        "late": range(second, layers),
        "all": range(layers),
    }


def _band_attention(layers: Sequence[LayerAttention], chosen: Sequence[int]) -> Float[Tensor, "T T"]:
    panels = AttentionPanels([layers[index] for index in chosen])
    return panels.rows(0, panels.length)[0].cpu()
