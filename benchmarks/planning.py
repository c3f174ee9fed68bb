"""What credit by flow takes of memory and time, by formulas over a model's shape: the tables of docs/scaling.md.

    python benchmarks/planning.py

Nothing is measured here. Seconds are floors of one H100: no program that computes a score so often can take less.
`make gpu` measures how near ours comes; tests hold the bytes to those of real tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowtracer.flow.solve import DENSE_BYTES, matrix_bytes
from flowtracer.signals.generated import GENERATION_BYTES
from random_models import QWEN3
from tables import markdown

PAGE = Path(__file__).parents[1] / "docs/scaling.md"
LENGTHS = (8192, 32768, 131072)
GIB = 2**30

EXPONENTIALS = 16 * 132 * 1.755e9
"""A second, of an H100 SXM: 16 a clock and multiprocessor."""

PRODUCTS = 989e12
"""Multiplications and additions a second in bfloat16, of an H100 SXM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder, as far as the costs depend on it."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    width: int
    active: float
    """Parameters that a token meets, those of the embedding left out."""

    @property
    def read(self) -> int:
        """Layers that flow averages over: the middle third."""
        return max(2 * self.layers // 3, self.layers // 3 + 1) - self.layers // 3


def of_qwen3(name: str) -> Shape:
    """A dense shape of `QWEN3`."""
    options = QWEN3[name]
    return decoder(
        options["num_hidden_layers"],
        options["hidden_size"],
        options["num_attention_heads"],
        options["num_key_value_heads"],
        options["intermediate_size"],
    )


def decoder(layers: int, hidden: int, heads: int, key_heads: int, met: int) -> Shape:
    """A decoder with heads of width 128; `met` is the MLP's width that one token meets."""
    width, vocabulary = 128, 151936
    layer = 2 * hidden * width * (heads + key_heads) + 3 * hidden * met
    return Shape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_heads=key_heads,
        width=width,
        active=layers * layer + vocabulary * hidden,
    )


SHAPES = {
    **{name: of_qwen3(name) for name in QWEN3},
    "235B-A22B": decoder(94, 4096, 64, 4, 8 * 1536),  # 8 of 128 experts
}


def kept_bytes(shape: Shape, tokens: int, *, item: int = 2) -> int:
    """Queries and keys of the layers that are read, over so many tokens of `item` bytes a number."""
    return shape.read * (shape.heads + shape.key_heads) * shape.width * item * tokens


def statistics_bytes(shape: Shape, tokens: int) -> int:
    """What the kernels keep of every softmax row: its largest score and its sum, in float32."""
    return shape.read * shape.heads * 2 * 4 * tokens


def scores(shape: Shape, tokens: int) -> float:
    """Pairs of tokens, heads and layers that the flow of one sequence averages over."""
    return shape.read * shape.heads * tokens * (tokens + 1) / 2


def credit_floor(shape: Shape, tokens: int) -> float:
    """Seconds of the scores of one sequence: once for the rows' statistics, once for each time the matrix is made."""
    times = 2 if matrix_bytes(1, tokens) <= DENSE_BYTES else 3
    return times * scores(shape, tokens) * (1 / EXPONENTIALS + 2 * shape.width / PRODUCTS)


def training_floor(shape: Shape, tokens: int) -> float:
    """Seconds of a forward, a backward pass and its recomputation over one sequence."""
    attention = 4 * shape.layers * shape.heads * shape.width * tokens * (tokens + 1) / 2
    return 4 * (2 * shape.active * tokens + attention) / PRODUCTS


def memory_table() -> str:
    """Bytes by model and length."""
    rows = (
        [
            name,
            f"{shape.read} of {shape.layers}",
            f"{kept_bytes(shape, 1) / 1024:,.0f}",
            *(f"{kept_bytes(shape, tokens) / GIB:,.2f}" for tokens in LENGTHS),
            f"{statistics_bytes(shape, LENGTHS[-1]) / GIB:,.2f}",
            f"{GENERATION_BYTES // kept_bytes(shape, 1):,}",
        ]
        for name, shape in SHAPES.items()
    )
    header = ("model", "layers read", "KiB a token", *(f"{label(n)}, GiB" for n in LENGTHS))
    return markdown((*header, "rows at 128K, GiB", "tokens in 2 GiB"), rows)


def time_table() -> str:
    """Floors by model and length."""

    def cells(shape: Shape, tokens: int) -> tuple[str, str]:
        credit = credit_floor(shape, tokens)
        return f"{credit:.2f}" if credit < 10 else f"{credit:,.0f}", f"{credit / training_floor(shape, tokens):.0%}"

    rows = ([name, *(cell for tokens in LENGTHS for cell in cells(shape, tokens))] for name, shape in SHAPES.items())
    return markdown(("model", *(text for n in LENGTHS for text in (f"{label(n)}, s", "of training"))), rows)


def label(tokens: int) -> str:
    """8K for 8192."""
    return f"{tokens // 1024}K"


TABLES: dict[str, Callable[[], str]] = {"memory": memory_table, "time": time_table}


def filled(page: str) -> str:
    """The page with its tables made anew, each between its two marks."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, rest = page.split(start)
        page = f"{before}{start}{table()}\n{end}{rest.split(end)[1]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
