"""Tables and pictures out of a study's results: learning curves, accuracies, paired differences, cost.

    python experiments/report.py short

Reads `results/STUDY.json` and writes `STUDY.md`, `.svg` and `.png` beside it; what is computed
stands in `flowtracer/study/comparison.py`. Only seeds that all runs have done are compared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flowtracer.errors import FlowTracerError
from flowtracer.study.comparison import compare_runs
from flowtracer.study.figures import table, write_comparison
from flowtracer.study.results import load_results

RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Write the table and the picture of each study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="+", help="names of studies")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where STUDY.json is")
    options = parser.parse_args()
    try:
        for study in options.study:
            comparison = compare_runs(load_results(options.results / f"{study}.json"))
            write_comparison(comparison, options.results)
            print(table(comparison))
    except FlowTracerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
