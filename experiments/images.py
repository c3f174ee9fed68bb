"""Do strategies find the tokens that need the image? A small model of images, trained here, where that is known.

    python experiments/images.py --problems 300

1. A picture is four squares, a to d, each of ten colours, and a colour is a digit. "a + 7 + d?" is answered
   "a is 3. 7 is 7. d is 5. 3 + 7 = 10. 10 + 5 = 15. A: 15", the terms in any order. Two of the three digits that are
   named come from the picture and from nowhere else; the third comes from the question, and all that follows is in
   the text.
2. A random LLaVA with a tower of one layer and a decoder of three learns this from worked responses.
3. On new problems every strategy that scores tokens ranks those of the worked response: AUROC of the two digits against
   all other tokens, and against the third alone, which stands where they do. Intervals are over problems; table and
   numbers to `results/images.md` and `.json`.
"""

from __future__ import annotations

import argparse
import copy
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from flowtracer.checks.planted.judge import auroc
from flowtracer.credit import CREDITS, Signals, make_credit, needs_of
from flowtracer.credit.together import read_together
from flowtracer.intervals import mean_interval
from flowtracer.model.load import load_model
from flowtracer.signals.images import Images
from flowtracer.signals.reader import SignalReader
from flowtracer.signals.sampled import Sampled
from outcome import write_outcome

SIDE = 14
"""Pixels of a square, which is a patch."""
CORNERS = "abcd"
COLOURS = np.random.default_rng(7).permutation(np.stack(np.meshgrid(*[[0, 128, 255]] * 3), -1).reshape(-1, 3)[1:])[:10]
"""Of the digits; none is black."""
BLACK = (-1.0, -1.0, -1.0)
UNREAD = {"gain", "gold", "group"}
"""Needs that take more than a worked response."""


@dataclass(frozen=True)
class Problems:
    """Pictures and what is asked of them."""

    digits_N4: np.ndarray
    """Of the squares."""
    terms_N3: np.ndarray
    """Squares by number, or -1 for the digit that the question gives."""
    given_N: np.ndarray
    """That digit."""

    @classmethod
    def drawn(cls, count: int, seed: int) -> Problems:
        """Two of four squares each and a digit, in any order."""
        rng = np.random.default_rng(seed)
        squares = [rng.permutation(len(CORNERS))[:2] for _ in range(count)]
        return cls(
            digits_N4=rng.integers(0, 10, (count, len(CORNERS))),
            terms_N3=np.stack([rng.permutation([*two, -1]) for two in squares]),
            given_N=rng.integers(0, 10, count),
        )

    def pixels(self, seed: int) -> Tensor:
        """(N, 3, height, width), normalised to -1..1, with a little noise so that none is like another."""
        squares_N4C = torch.from_numpy(COLOURS[self.digits_N4]).float() / 127.5 - 1
        pixels_NCHW = squares_N4C.view(-1, 2, 2, 3).permute(0, 3, 1, 2)
        pixels_NCHW = pixels_NCHW.repeat_interleave(SIDE, 2).repeat_interleave(SIDE, 3)
        return pixels_NCHW + 0.05 * torch.randn(pixels_NCHW.shape, generator=torch.Generator().manual_seed(seed))

    def texts(self) -> list[tuple[str, str]]:
        """Question and worked response of each."""
        found = []
        for digits, terms, given in zip(self.digits_N4, self.terms_N3, self.given_N, strict=True):
            names = [str(given) if term < 0 else CORNERS[term] for term in terms]
            x, y, z = (int(given if term < 0 else digits[term]) for term in terms)
            named = " ".join(f"{name} is {value}." for name, value in zip(names, (x, y, z), strict=True))
            summed = f"{x} + {y} = {x + y}. {x + y} + {z} = {x + y + z}.\nA: {x + y + z}"
            found.append((f"{' + '.join(names)}?", f"{named} {summed}"))
        return found


def build() -> tuple[Any, Any]:
    """A random model, and nano's tokenizer with a token for the parts of an image."""
    tokenizer = copy.deepcopy(load_model("nano")[1])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    decoder |= {"num_key_value_heads": 4, "vocab_size": len(tokenizer), "tie_word_embeddings": True}
    config = AutoConfig.for_model(
        "llava",
        text_config={"model_type": "llama", **decoder},
        vision_config={"model_type": "clip_vision_model", **tower, "image_size": 2 * SIDE, "patch_size": SIDE},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config), tokenizer


def batch_of(problems: Problems, tokenizer: Any, seed: int) -> Sampled:
    """Worked responses as a trainer would have sampled them."""
    shown = "<image>" * len(CORNERS)
    pairs = [
        (
            tokenizer(f"<|user|>{shown}{question}<|assistant|>")["input_ids"],
            tokenizer(f"{response}<|end|>")["input_ids"],
        )
        for question, response in problems.texts()
    ]
    padded = Sampled.padded(pairs, pad=tokenizer.pad_token_id)
    carried = {"pixel_values": problems.pixels(seed), "num_images": [1] * len(pairs)}
    return Sampled(
        prompt_ids_BP=padded.prompt_ids_BP,
        prompt_mask_BP=padded.prompt_mask_BP,
        response_ids_BR=padded.response_ids_BR,
        response_mask_BR=padded.response_mask_BR,
        images=Images.of(carried, len(pairs)),
    )


def log_probs(model: Any, sampled: Sampled) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the response tokens, which of them the model would say itself, and which count."""
    few = sampled.few(torch.arange(len(sampled)))
    logits_BRV = model(**few.inputs()).logits[:, few.first - 1 : -1].float()
    targets_BR, counted_BR = few.ids_BT[:, few.first :], few.mask_BT[:, few.first :].bool()
    own_BR = logits_BRV.log_softmax(-1).gather(-1, targets_BR[..., None]).squeeze(-1)
    return own_BR, logits_BRV.argmax(-1) == targets_BR, counted_BR


def train(model: Any, tokenizer: Any, steps: int, size: int) -> None:
    """Worked responses, a new batch at each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    for step in track(range(steps), "learning"):
        own_BR, _, counted_BR = log_probs(model, batch_of(Problems.drawn(size, 1000 + step), tokenizer, step))
        loss = -own_BR[counted_BR].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"step {step}: {float(loss.detach()):.3f} nats a token")


def named_digits(problems: Problems, sampled: Sampled, tokenizer: Any) -> tuple[Tensor, Tensor]:
    """The digits that each response names off the picture, and those off the question."""
    marks_2BR = torch.zeros(2, *sampled.response_ids_BR.shape, dtype=torch.bool)
    for row, ((_, response), terms) in enumerate(zip(problems.texts(), problems.terms_N3, strict=True)):
        offsets = tokenizer(response, return_offsets_mapping=True)["offset_mapping"]
        for term, named in zip(terms, re.finditer(r" is (\d)", response), strict=True):
            column = next(n for n, (start, stop) in enumerate(offsets) if start <= named.start(1) < stop)
            marks_2BR[int(term < 0), row, column] = True
    return marks_2BR[0], marks_2BR[1]


def judge(
    model: Any, tokenizer: Any, sampled: Sampled, needed_BR: Tensor, alike_BR: Tensor
) -> dict[str, list[tuple[float, float]]]:
    """AUROC of each strategy on each response that it speaks about: against all tokens, and against those alike."""
    strategies = {name: make_credit(name, {"target": "answer"} if name == "grail" else None) for name in CREDITS}
    strategies = {name: credit for name, credit in strategies.items() if not needs_of(credit) & UNREAD}
    seeds_B = tuple(range(len(sampled)))
    found: dict[str, list[tuple[float, float]]] = {}
    for together in read_together(strategies):
        reader = SignalReader(model, tokenizer, together, rows_per_forward=32, black=BLACK)
        signals = Signals(
            mask_BR=sampled.response_mask_BR.bool(),
            advantages_B=torch.ones(len(sampled)),
            seeds_B=seeds_B,
            readings=reader.read(sampled, seeds_B)[0],
        )
        for name, scores_BR, speaks_B in together.scores(signals):
            spoken = range(len(sampled)) if speaks_B is None else speaks_B.nonzero().squeeze(-1).tolist()
            found[name] = [
                (
                    auroc(of_R[needed_R].numpy(), of_R[mask_R & ~needed_R].numpy()),
                    auroc(of_R[needed_R].numpy(), of_R[alike_R].numpy()),
                )
                for of_R, needed_R, alike_R, mask_R in (
                    (scores_BR[row], needed_BR[row], alike_BR[row], signals.mask_BR[row]) for row in spoken
                )
            ]
    return found


def main() -> None:
    """Train, judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--problems", type=int, default=300)
    options = parser.parse_args()
    model, tokenizer = build()
    train(model, tokenizer, options.steps, options.batch)
    model.eval()
    problems = Problems.drawn(options.problems, 1)
    sampled = batch_of(problems, tokenizer, 1)
    needed_BR, alike_BR = named_digits(problems, sampled, tokenizer)
    with torch.no_grad():
        _, said_BR, counted_BR = log_probs(model, sampled)
    right, seen = float((said_BR | ~counted_BR).all(-1).float().mean()), float(said_BR[needed_BR].float().mean())
    judged = judge(model, tokenizer, sampled, needed_BR, alike_BR)
    intervals = {
        name: [mean_interval(np.array(one)) for one in zip(*each, strict=True)] for name, each in judged.items()
    }
    title = f"AUROC of digits off the picture; {seen:.1%} of them said rightly, and {right:.1%} of whole responses"
    table = Table("strategy", title=title, title_justify="left", pad_edge=False)
    for header in ("against all other tokens", "against the digit off the question", "problems"):
        table.add_column(header, justify="right")
    for name, pair in sorted(intervals.items(), key=lambda item: -item[1][1].mean):
        table.add_row(name, *(f"{one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in pair), str(pair[0].items))
    document = {
        **vars(options),
        "responses_said_rightly": right,
        "digits_said_rightly": seen,
        "auroc": {name: {"all": asdict(pair[0]), "alike": asdict(pair[1])} for name, pair in intervals.items()},
    }
    print(write_outcome("images", document, [table], heading="Which tokens need the image"))


if __name__ == "__main__":
    main()
