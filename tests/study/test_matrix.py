"""Studies as files: what they say, and every way to get one wrong."""

from pathlib import Path

import pytest

from flowtracer.credit import make_credit
from flowtracer.errors import InputError
from flowtracer.study.matrix import read_study
from study_files import write_study

ROOT = Path(__file__).parents[2]


def test_a_matrix_is_every_entry_and_every_combination_of_its_grid(tmp_path):
    credit = """
        { name = "uniform" },
        { name = "flow", options = { keep = "bottom" } },
        { name = "flow", grid = { ratio = [0.2, 0.6], gamma = [1.2, 2.0] } },
        { name = "entropy", grid = { ratio = [0.2, 0.6] }, options = { gamma = 3.0 }, label = "sharp" },
        { name = "local", options = { layers = [1, 2] }, normalise = true },
    """
    study = read_study(write_study(tmp_path, credit=credit))
    assert {label: run.credit.options for label, run in study.runs.items()} == {
        "uniform": {},
        "flow-keep=bottom": {"keep": "bottom"},
        "flow-ratio=0.2-gamma=1.2": {"ratio": 0.2, "gamma": 1.2},
        "flow-ratio=0.2-gamma=2.0": {"ratio": 0.2, "gamma": 2.0},
        "flow-ratio=0.6-gamma=1.2": {"ratio": 0.6, "gamma": 1.2},
        "flow-ratio=0.6-gamma=2.0": {"ratio": 0.6, "gamma": 2.0},
        "sharp-ratio=0.2": {"ratio": 0.2, "gamma": 3.0},
        "sharp-ratio=0.6": {"ratio": 0.6, "gamma": 3.0},
        "local-layers=1_2": {"layers": [1, 2]},
    }
    assert study.baseline == "uniform"
    assert [study.runs[label].credit.normalise for label in ("uniform", "local-layers=1_2")] == [False, True]
    run = study.run("sharp-ratio=0.2", 7, tmp_path)
    assert (run.seed, run.output_dir, run.credit.name) == (7, tmp_path, "entropy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"credit": '{ name = "flaw" }'}, "expected a credit among"),
        ({"credit": '{ name = "flow", options = { gama = 2 } }'}, "expected options of credit 'flow'"),
        ({"credit": '{ name = "flow", grid = { ratio = [0.2, 3.0] } }'}, "expected ratio in"),
        ({"credit": '{ name = "flow" }, { name = "flow" }'}, "'flow' twice"),
        ({"credit": '{ name = "flow", label = "a/b" }'}, "matrix.credit.0.label: string should match"),
        ({"credit": ""}, "matrix.credit: list should have at least 1"),
        ({"baseline": "plain"}, r"matrix.baseline among \['flow', 'uniform'\], got 'plain'"),
        ({"problems": 0}, "evaluation.problems above 0"),
        ({"task": "sudoku"}, "expected a task among"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_study(write_study(tmp_path, **changes))


@pytest.mark.parametrize("file", sorted((ROOT / "experiments/runs").glob("*.toml")), ids=lambda file: file.stem)
def test_the_studies_here_are_valid(file):
    study = read_study(file)
    assert f"flowtracer study experiments/runs/{file.name}" in file.read_text().splitlines()[0]
    for run in study.runs.values():
        make_credit(run.credit.name, run.credit.options)
