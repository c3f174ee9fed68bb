"""Train nano from scratch: next-token prediction on the responses of imperfect teachers.

    python recipes/nano/train.py --out runs/nano            # an hour on one core; interrupted, it goes on

    python recipes/nano/train.py --out runs/forks --mixture forks --start nano --steps 600 --learning-rate 5e-4

1. Examples are drawn as training goes (`data.py`), from the train split alone; none is seen twice on purpose.
2. They are cut into micro-batches of about equal token counts and few widths, so that compilation happens once a
   width; a step accumulates a few.
3. AdamW, forwards in bfloat16, weights in float32. The learning rate rises, stays, and falls over the last fifth.
   A processor without instructions for bfloat16 is several times faster with `--dtype float32`.
4. Teachers are perfect until then, and over the last fifth have their flaws (`data.STAGES`). The skill takes long to
   learn and the flaws do not, so other flaws need only that last fifth again. And a skill that a flawed teacher hardly
   needs is not learned: taught by slips from the start, a model of forks did not look at what was asked for.

Eager attention is chosen by measurement: at these lengths PyTorch's fused attention on a CPU takes most of a step,
backward above all.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from data import MIXTURES, STAGES, Example, examples
from safetensors.torch import load_file, save_file
from tokenizer import make_tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Qwen3Config, Qwen3ForCausalLM

from flowtracer.model.load import load_model

WIDTHS = (64, 88, 124, 180)
TOKENS = 4096  # of a micro-batch: larger ones leave the cache
POOL = 1024  # examples drawn at once, to be sorted by width


def main() -> None:
    """Train, with a checkpoint every so often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/nano"))
    parser.add_argument("--mixture", choices=list(MIXTURES), default="nano", help="what it learns")
    parser.add_argument("--start", help="a model whose weights it begins with; from scratch if not given")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--plan", type=int, help="steps that the learning rate is planned for, if not --steps")
    parser.add_argument("--accumulate", type=int, default=2, help="micro-batches of a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-steps", type=int, default=100)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of forwards")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    model = Qwen3ForCausalLM(configuration(tokenizer))
    if options.start:
        model.load_state_dict(load_model(options.start, device="cpu", dtype="float32")[0].state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    start = restore(options.out, model, optimizer)
    forward = torch.compile(model, dynamic=False) if options.compile else model
    dtype = getattr(torch, options.dtype)
    plan = Plan(steps=options.plan or options.steps)
    batches = stream(
        tokenizer, options.mixture, options.seed, start * options.accumulate, plan.steady * options.accumulate
    )
    began, tokens = time.time(), 0
    for step in range(start, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * plan.learning_rate(step)
        total = 0.0
        for _ in range(options.accumulate):
            ids_BT, labels_BT = next(batches)
            loss = response_loss(forward, ids_BT, labels_BT, dtype) / options.accumulate
            loss.backward()
            total += loss.item()
            tokens += ids_BT.numel()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 10 == 0:
            log(options.out, step=step + 1, loss=total, tokens_per_second=tokens / (time.time() - began))
        if (step + 1) % options.save_steps == 0 or step + 1 == options.steps:
            save(options.out, model, tokenizer, optimizer, step + 1)


def configuration(tokenizer: Any) -> Qwen3Config:
    """A Qwen3 of 1.2 M parameters."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        attn_implementation="eager",
    )


def stream(tokenizer: Any, mixture: str, seed: int, start: int, flawed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Micro-batches of ids and labels from number `start` on; from number `flawed` on, the teacher errs."""
    number, pool = 0, 0
    while True:
        teacher = STAGES[number >= flawed]
        drawn = examples(tokenizer, POOL, seed=f"{seed} {pool}", teacher=teacher, mixture=mixture)
        for batch in micro_batches(list(drawn), seed=pool):
            if number >= start:
                yield batch
            number += 1
        pool += 1


def micro_batches(pool: list[Example], seed: int) -> list[tuple[Tensor, Tensor]]:
    """Examples of like width side by side, padded on the right; whole micro-batches only, in random order."""
    batches = []
    for low, width in zip((0, *WIDTHS), WIDTHS, strict=False):
        rows = [e for e in pool if low < len(e.prompt) + len(e.response) <= width]
        size = TOKENS // width
        for first in range(0, len(rows) - size + 1, size):
            ids_BT = torch.zeros(size, width, dtype=torch.long)
            labels_BT = torch.full((size, width), -100)
            for row, example in enumerate(rows[first : first + size]):
                both = torch.tensor(example.prompt + example.response)
                ids_BT[row, : len(both)] = both
                labels_BT[row, len(example.prompt) : len(both)] = both[len(example.prompt) :]
            batches.append((ids_BT, labels_BT))
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(seed)).tolist()
    return [batches[index] for index in order]


def response_loss(forward: Callable[..., Any], ids_BT: Tensor, labels_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean cross-entropy over the response tokens. Padding on the right needs no mask: nothing attends to it."""
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        logits_BTV = forward(input_ids=ids_BT, use_cache=False).logits
    return cross_entropy(logits_BTV[:, :-1].float().flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=-100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the learning rate goes, and when the teacher changes."""

    steps: int
    warmup: int = 100

    @property
    def steady(self) -> int:
        """The step at which the learning rate begins to fall."""
        return round(0.8 * self.steps)

    def learning_rate(self, step: int) -> float:
        """Share of the peak."""
        falling = (self.steps - step) / (self.steps - self.steady)
        return min((step + 1) / self.warmup, 1.0, falling)


def save(folder: Path, model: Qwen3ForCausalLM, tokenizer: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write model, tokenizer and optimizer; the step goes last, so that an interrupted save is not resumed from."""
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    moments = {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    save_file(moments, folder / "optimizer.safetensors")
    (folder / "step.json").write_text(json.dumps({"step": step}))


def restore(folder: Path, model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    """Load what `save` wrote; returns the step to go on from, 0 for a fresh start."""
    if not (folder / "step.json").exists():
        return 0
    model.load_state_dict(Qwen3ForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).state_dict())
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return json.loads((folder / "step.json").read_text())["step"]


def log(folder: Path, **values: float) -> None:
    """One line of the log, also printed."""
    line = json.dumps({key: round(value, 5) for key, value in values.items()} | {"time": time.time()})
    with (folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


if __name__ == "__main__":
    main()
