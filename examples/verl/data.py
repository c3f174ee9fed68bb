"""DAPO-Math-17K as verl reads it: 17 thousand problems whose answers are integers.

    python examples/verl/data.py data/dapo

The hub's file repeats every problem a hundred times and asks for a last line "Answer: ..."; here each stands once, and
is asked for its answer in a box, as Qwen3 gives it. The last 256 are for validation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

HUB = "BytedTsinghua-SIA/DAPO-Math-17k"
BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
BEHIND = '\n\nRemember to put your answer on its own line after "Answer:".'
ASK = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
VALIDATION = 256


def rows_of(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each problem once, in the order of the file."""
    seen: set[str] = set()
    for record in records:
        question = record["prompt"][0]["content"].removeprefix(BEFORE).removesuffix(BEHIND).strip()
        if question in seen:
            continue
        yield {
            "data_source": "dapo-math-17k",
            "prompt": [{"role": "user", "content": question + ASK}],
            "reward_model": {"style": "rule", "ground_truth": str(record["reward_model"]["ground_truth"])},
            "extra_info": {"index": len(seen)},
        }
        seen.add(question)


def main(folder: Path) -> None:
    rows = list(rows_of(datasets.load_dataset(HUB, split="train")))
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", rows[:-VALIDATION]), ("validation", rows[-VALIDATION:])):
        datasets.Dataset.from_list(part).to_parquet(folder / f"{name}.parquet")
        print(f"{name}: {len(part)} problems")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
