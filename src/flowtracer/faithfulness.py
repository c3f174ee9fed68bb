"""Is the picture true? Signals of attention judged by which steps the answer is known to depend on.

1. A task writes a response whose needed steps and distractors are known by construction.
2. The model reads it. Only problems count that it concludes rightly: given the steps, its most likely token at each
   position from there to the answer's last is the response's own.
3. Each signal gives every token a score; a step's score is the sum over its tokens.
4. The AUROC is the chance that a needed step outscores a distractor of the same response, ties counting half; it is
   averaged over problems, with a bootstrap interval over them. 0.5 says nothing, 1 separates them all.

Position and random stand beside the signals: on a fair task they are at 0.5, or the task gives the truth away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtracer.answer import Answer, CharSpan, locate_answer
from flowtracer.attention import AttentionPanels, LayerAttention
from flowtracer.capture import AttentionReader
from flowtracer.encoding import encode_text
from flowtracer.errors import InputError
from flowtracer.flow import compute_flow
from flowtracer.intervals import Interval, mean_interval
from flowtracer.shapes import Bool, Float
from flowtracer.tasks import Problem, WorkedTask


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness:
    """AUROC of every signal, by band of layers; controls stand under the band "none"."""

    auroc: Mapping[tuple[str, str], Interval]
    """By (signal, band)."""
    problems: int
    right: int
    """Of the problems, those that the model concluded rightly: the AUROCs are over these."""


def faithfulness(
    model: Any,
    tokenizer: Any,
    task: WorkedTask,
    problems: Sequence[Problem],
    *,
    seed: int = 0,
    on_problem: Callable[[], None] | None = None,
) -> Faithfulness:
    """Judge every signal on the task's worked responses to the problems.

    Raises:
        InputError: The model concludes none of the problems rightly.
        CaptureError: Its attention cannot be read.
    """
    reader = AttentionReader(model, layers=range(model.config.get_text_config(decoder=True).num_hidden_layers))
    bands = layer_bands(len(reader.layers))
    scores: dict[tuple[str, str], list[float]] = {}
    right = 0
    for number, problem in enumerate(problems):
        found = _judge(reader, model, tokenizer, task, problem, bands, seed + number)
        right += found is not None
        for key, value in (found or {}).items():
            scores.setdefault(key, []).append(value)
        if on_problem is not None:
            on_problem()
    if not right:
        raise InputError(f"expected a model that concludes some of {len(problems)} problems rightly, got none right")
    return Faithfulness(
        auroc={key: mean_interval(np.array(values), seed=seed) for key, values in scores.items()},
        problems=len(problems),
        right=right,
    )


def layer_bands(layers: int) -> dict[str, range]:
    """The early, middle and late third of the layers, and all of them."""
    first, second = layers // 3, 2 * layers // 3
    return {
        "early": range(first),
        "middle": range(first, second),
        "late": range(second, layers),
        "all": range(layers),
    }


def auroc(needed: np.ndarray, distractors: np.ndarray) -> float:
    """Chance that one of the scores of needed steps exceeds one of distractors, ties counting half."""
    difference = np.subtract.outer(needed, distractors)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def _judge(
    reader: AttentionReader,
    model: Any,
    tokenizer: Any,
    task: WorkedTask,
    problem: Problem,
    bands: Mapping[str, range],
    seed: int,
) -> dict[tuple[str, str], float] | None:
    """Every signal's AUROC on one worked response; None if the model does not conclude it rightly."""
    worked = task.work(problem, seed=seed)
    prompt = tokenizer.apply_chat_template(list(problem.prompt), tokenize=False, add_generation_prompt=True)
    text = encode_text(tokenizer, prompt, worked.text, special_tokens=False)
    found = locate_answer(worked.text)
    if not isinstance(found, Answer):
        raise InputError(f"{problem.id}: expected a worked response with an answer, got {found.message}")
    offsets = text.offsets - text.response_start
    answer_T = torch.from_numpy(_overlap(offsets, found.span))
    ids_1T = torch.from_numpy(text.token_ids)[None].to(model.device)
    layers = reader.read(ids_1T)
    conclusion = CharSpan(start=worked.steps[-1].span.stop, stop=found.span.stop)
    if not _predicts(model, ids_1T, torch.from_numpy(_overlap(offsets, conclusion))):
        return None
    steps_ST = np.stack([_overlap(offsets, step.span) for step in worked.steps])
    needed_S = np.array([step.needed for step in worked.steps])

    def judged(signal: Signal, attention_TT: Tensor) -> float:
        reading = Reading(
            attention_TT=attention_TT, question_T=torch.from_numpy(offsets[:, 1] <= 0), answer_T=answer_T, seed=seed
        )
        steps_S = steps_ST @ signal(reading).double().cpu().numpy()
        return auroc(steps_S[needed_S], steps_S[~needed_S])

    result: dict[tuple[str, str], float] = {}
    for band, chosen in bands.items():
        attention_TT = _band_attention(layers, chosen)
        result |= {(name, band): judged(signal, attention_TT) for name, signal in ATTENTION_SIGNALS.items()}
    return result | {(name, "none"): judged(signal, attention_TT) for name, signal in CONTROLS.items()}


def _band_attention(layers: Sequence[LayerAttention], chosen: Sequence[int]) -> Tensor:
    panels = AttentionPanels([layers[index] for index in chosen])
    return panels.rows(0, panels.length)[0].cpu()


@torch.inference_mode()
def _predicts(model: Any, ids_1T: Tensor, tokens_T: Tensor) -> bool:
    """Whether these tokens are what greedy decoding gives, each behind all before it."""
    likeliest_T = model(input_ids=ids_1T, use_cache=False).logits[0].argmax(-1).cpu()
    return bool((likeliest_T[tokens_T.roll(-1)] == ids_1T[0].cpu()[tokens_T]).all())


def _overlap(offsets: np.ndarray, span: CharSpan) -> np.ndarray:
    return (offsets[:, 0] < span.stop) & (offsets[:, 1] > span.start)
