"""The flow solve alone, beside general solvers and beside maximum flow, over lengths, in one run.

    python benchmarks/flow_solve.py

Given one matrix of attention, five ways:

- `panels`: FlowTracer's two sweeps;
- `reference`: the equations as written, in float64;
- `torch.linalg`: the same two triangular systems, whole;
- `scipy sparse`: the same systems by `scipy.sparse.linalg.spsolve_triangular`;
- `networkx`: maximum flow from question to answer with attention as capacities, by the algorithm of Abnar and
  Zuidema's attention flow (2020), `edmonds_karp`: one number, no token's share.

The first four must agree. A way that would take more than a minute at a length is left out from there on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import sparse
from scipy.sparse.linalg import spsolve_triangular

from flowtracer.flow import MatrixPanels
from flowtracer.flow.solve import solve
from flowtracer.study.machine import stamp
from growth import exponents
from machine import seconds

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
LIMIT_SECONDS = 60.0


class Case:
    """Attention of random queries and keys, as peaked as a trained model's."""

    def __init__(self, length: int) -> None:
        generator = torch.Generator().manual_seed(length)
        scores_TT = 3 * torch.randn(length, length, generator=generator)
        future_TT = torch.ones(length, length, dtype=torch.bool).triu(1)
        self.attention_TT = scores_TT.masked_fill_(future_TT, -torch.inf).softmax(-1).tril_(-1)
        self.question_T, self.answer_T = torch.zeros(2, length, dtype=torch.bool)
        self.question_T[: length // 8] = True
        self.answer_T[-4:] = True

    def panels(self) -> np.ndarray:
        """Two sweeps over panels."""
        return self._solved("panels")

    def reference(self) -> np.ndarray:
        """As the equations are written."""
        return self._solved("reference")

    def _solved(self, implementation: str) -> np.ndarray:
        source = MatrixPanels(self.attention_TT[None])
        found = solve(source, self.question_T[None], self.answer_T[None], implementation=implementation)
        return found.flow_BT[0].double().numpy()

    def torch_linalg(self) -> np.ndarray:
        """`(I - W') h = a` and `(I - W'') u = s / h`, whole."""
        weights_TT = self.attention_TT.double()
        absorbs_T = self.answer_T.double()
        backward_TT = torch.eye(len(weights_TT), dtype=torch.float64) - weights_TT.T * (1 - absorbs_T)[:, None]
        reach_T = torch.linalg.solve_triangular(backward_TT, absorbs_T[:, None], upper=True)[:, 0]
        forward_TT = torch.eye(len(weights_TT), dtype=torch.float64) - weights_TT * (1 - absorbs_T)
        inflow_T = torch.linalg.solve_triangular(forward_TT, self._entry(reach_T)[:, None], upper=False)[:, 0]
        return (inflow_T * reach_T).numpy()

    def scipy_sparse(self) -> np.ndarray:
        """The same systems, with the zeros above the diagonal left out."""
        weights_TT = sparse.csr_array(self.attention_TT.double().numpy())
        absorbs_T = self.answer_T.double().numpy()
        unit_TT = sparse.eye_array(len(absorbs_T), format="csr")
        backward_TT = (unit_TT - sparse.diags_array(1 - absorbs_T) @ weights_TT.T).tocsr()
        reach_T = spsolve_triangular(backward_TT, absorbs_T, lower=False)
        forward_TT = (unit_TT - weights_TT @ sparse.diags_array(1 - absorbs_T)).tocsr()
        return spsolve_triangular(forward_TT, self._entry(torch.from_numpy(reach_T)).numpy()) * reach_T

    def networkx(self) -> None:
        """Maximum flow; not the same question, and what stands in the field for it."""
        graph = networkx.DiGraph()
        weights_TT = self.attention_TT.double().numpy()
        rows, columns = np.nonzero(weights_TT)
        graph.add_weighted_edges_from(
            zip(columns.tolist(), rows.tolist(), weights_TT[rows, columns].tolist(), strict=True), weight="capacity"
        )
        graph.add_edges_from(("source", int(token)) for token in self.question_T.nonzero())  # without bound
        graph.add_edges_from((int(token), "sink") for token in self.answer_T.nonzero())
        networkx.maximum_flow_value(graph, "source", "sink", flow_func=networkx.algorithms.flow.edmonds_karp)

    def _entry(self, reach_T: torch.Tensor) -> torch.Tensor:
        """What enters, the same at every question token that reaches the answer, over reach."""
        enters_T = self.question_T & (reach_T > 0)
        return torch.where(enters_T, 1 / enters_T.sum() / reach_T, 0.0)


def measure(lengths: list[int], rounds: int) -> list[dict[str, Any]]:
    """Seconds of every way at every length."""
    rows: list[dict[str, Any]] = []
    for length in lengths:
        case = Case(length)
        ways: dict[str, Callable[[], Any]] = {
            "panels": case.panels,
            "reference": case.reference,
            "torch.linalg": case.torch_linalg,
            "scipy sparse": case.scipy_sparse,
            "networkx": case.networkx,
        }
        ways = {name: way for name, way in ways.items() if expected_seconds(rows, name, length) <= LIMIT_SECONDS}
        expected_T = ways["panels"]()
        for name in {"reference", "torch.linalg", "scipy sparse"} & ways.keys():
            np.testing.assert_allclose(ways[name](), expected_T, rtol=1e-4, atol=1e-7, err_msg=name)
        times = {
            name: once if (once := seconds(way)) > 5 else statistics.median(seconds(way) for _ in range(rounds))
            for name, way in ways.items()
        }
        rows.append({"length": length, "seconds": times})
        Console(width=120).print(table(rows[-1:]))
    return rows


def expected_seconds(rows: list[dict[str, Any]], name: str, length: int) -> float:
    """What a way would take at a length, by how it grew, or by the cube where that is not known; 0 for the first."""
    known = [(row["length"], row["seconds"][name]) for row in rows if name in row["seconds"]]
    if not known:
        return 0.0 if not rows else float("inf")
    (last, time), growth = known[-1], 3.0
    if len(known) > 1:
        earlier, before = known[-2]
        growth = float(np.log(time / before) / np.log(last / earlier))
    return time * (length / last) ** growth if rows[-1]["length"] == last else float("inf")


def table(rows: list[dict[str, Any]]) -> Table:
    """Seconds, and how many times what the panels take."""
    names = list(rows[0]["seconds"])
    shown = Table("tokens", *(f"{name}" for name in names), title="seconds, and times the panels'")
    for row in rows:
        times = row["seconds"]
        cells = (f"{times[n]:.4f} ({times[n] / times['panels']:,.0f})" if n in times else "-" for n in names)
        shown.add_row(f"{row['length']:,}", *cells)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/flow_solve.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore", sparse.SparseEfficiencyWarning)
    rows = measure(options.lengths, options.rounds)
    growth = exponents([(row["length"], row["seconds"]) for row in rows])
    result = {"machine": stamp(), "threads": torch.get_num_threads(), "growth": growth, "lengths": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    Console(width=120).print(table(rows))


if __name__ == "__main__":
    main()
