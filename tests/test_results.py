"""Whoever doubts a figure of the documentation finds it in a table of what was measured."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGES = [ROOT / "README.md", ROOT / "docs" / "results.md"]

_FIGURE = re.compile(r"[+-]?(\d+\.\d+)(?: %| points)? \[([+-]?\d+\.\d+), ([+-]?\d+\.\d+)\]")
"""A mean and its interval, with the digits they are given in."""


def figures_in(text: str) -> set[tuple[str, ...]]:
    """Size of the mean, as a sentence may say "by 3 points less", low and high."""
    return {tuple(number.lstrip("+") for number in found) for found in _FIGURE.findall(text)}


def figures_of(value: object) -> Iterator[tuple[str, ...]]:
    """Every mean of a results file with its interval, as a number to two places and as percent."""
    if isinstance(value, dict) and {"mean", "low", "high"} <= value.keys():
        low, mean, high = value["low"], abs(value["mean"]), value["high"]
        yield tuple(f"{number:.2f}" for number in (mean, low, high))
        yield tuple(f"{100 * number:.1f}" for number in (mean, low, high))
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from figures_of(part)


@pytest.fixture(scope="module")
def measured():
    tables = {figure for file in RESULTS.glob("*.md") for figure in figures_in(file.read_text())}
    documents = (json.loads(file.read_text()) for file in RESULTS.glob("*.json"))
    return tables | {figure for document in documents for figure in figures_of(document)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_figure_with_an_interval_was_measured(page, measured):
    claimed = figures_in(page.read_text())
    assert claimed
    assert claimed <= measured, f"in no table of {RESULTS.name}: {sorted(claimed - measured)}"
