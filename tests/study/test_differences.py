"""Statistics of a study, by hand."""

import copy
import json
import math

import numpy as np
import pytest
from scipy import stats

from flowtracer.errors import FormatError, InputError
from flowtracer.study.differences import compare_runs
from flowtracer.study.figures import write_comparison
from flowtracer.study.results import load_results, save_results
from flowtracer.study.statistics import difference, holm, student_interval
from flowtracer.study.tables import markdown
from study_files import document_of

BASE = [[0.4, 0.5, 0.6], [0.4, 0.5, 0.5], [0.4, 0.6, 0.7]]
BETTER = [[0.4, 0.7, 0.7], [0.4, 0.5, 0.6], [0.4, 0.7, 0.9]]
ALIKE = BASE


def test_differences_are_paired_by_seed():
    found = compare_runs(document_of({"uniform": BASE, "flow": BETTER, "random": ALIKE}))
    assert (found.baseline, found.seeds, found.steps, found.problems) == ("uniform", [0, 1, 2], 20, 100)
    base, flow, random = found.runs
    assert base.final_difference is None
    assert base.p is None
    # Final differences 0.1, 0.1, 0.2: mean 0.4 / 3, deviation 0.1 / sqrt(3), Student's t at 2 degrees 4.3027.
    assert flow.final_difference.mean == pytest.approx(0.4 / 3)
    half = 4.302652729911275 * (0.1 / 3**0.5) / 3**0.5
    assert flow.final_difference.high - flow.final_difference.mean == pytest.approx(half)
    assert flow.p == pytest.approx(stats.ttest_rel([0.7, 0.6, 0.9], [0.6, 0.5, 0.7]).pvalue)
    assert flow.p_corrected == pytest.approx(2 * flow.p)
    assert random.final_difference.mean == 0
    assert random.p == random.p_corrected == 1
    # Means over the curve by the trapezoid rule: 0.625, 0.5, 0.675 against 0.5, 0.475, 0.575.
    assert flow.average.mean == pytest.approx((0.625 + 0.5 + 0.675) / 3)
    assert flow.average_difference.mean == pytest.approx((0.125 + 0.025 + 0.1) / 3)
    assert (flow.step_seconds, flow.credit_seconds, flow.response_tokens) == pytest.approx((3.0, 0.15, 30.0))


def test_holm_by_hand():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    assert math.isnan(holm({"a": float("nan")})["a"])


def test_one_seed_has_no_interval():
    assert math.isnan(student_interval(np.array([0.5])).low)
    assert math.isnan(difference(np.array([0.5]), np.array([0.25]), paired=True).p)
    assert difference(np.array([0.5, 0.75]), np.array([0.25, 0.5]), paired=True).p == 0.0
    found = compare_runs(document_of({"uniform": BASE[:1], "flow": BETTER[:1]}))
    assert "| flow | 70.0 % | +10.0 % | +12.5 % | 30 |" in markdown(found), "no p, and no column of it"


def test_only_seeds_of_all_runs_count():
    found = compare_runs(document_of({"uniform": BASE, "flow": BETTER[:2]}))
    assert found.seeds == [0, 1]
    with pytest.raises(InputError, match="got none by flow"):
        compare_runs(document_of({"uniform": BASE, "flow": []}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda curve: curve.update(steps=19), "equal steps in 'small', got 20 by 'uniform' and 19 by 'flow'"),
        (lambda curve: curve.update(epochs=0.5), "equal epochs"),
        (lambda curve: curve["held_out"].pop(1), r"evaluations after the steps \[0, 10, 20\]"),
    ],
)
def test_unequal_runs_are_refused(change, message):
    document = document_of({"uniform": BASE, "flow": BETTER})
    change(document["runs"]["flow"]["seeds"]["1"])
    with pytest.raises(InputError, match=message):
        compare_runs(document)


def test_tables_and_pictures_come_out_of_the_file(tmp_path):
    document = document_of({"uniform": BASE, "flow": BETTER, **{f"other{n}": BASE for n in range(20)}})
    save_results(tmp_path / "small.json", document)
    assert load_results(tmp_path / "small.json") == document
    written = write_comparison(compare_runs(load_results(tmp_path / "small.json")), tmp_path)
    assert [file.name for file in written] == ["small.md", "small.svg", "small.png"]
    text = written[0].read_text()
    assert "| uniform | 60.0 % [35.2, 84.8] |  |  |  | 30 | 3.00 | 5.0% |" in text
    assert "| flow | 73.3 % [35.4, 111.3] | +13.3 % [-1.0, +27.7] |" in text
    assert "3 seeds; before training 40.0 %" in text
    assert "abacus, 2 cores" in text
    svg = written[1].read_text()
    assert all(f">{word}<" in svg for word in ("uniform", "flow", "other19", "GRPO steps"))
    again = tmp_path / "again"
    write_comparison(compare_runs(copy.deepcopy(document)), again)
    assert (again / "small.svg").read_text() == svg, "the same results give the same picture"


def test_points_of_a_curve_stand_on_one_line(tmp_path):
    save_results(tmp_path / "r.json", document_of({"uniform": BASE}))
    assert "[10, 0.5, 0.4, 0.6]" in (tmp_path / "r.json").read_text()
    assert not list(tmp_path.glob("*.partial"))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="run the study first"):
        load_results(tmp_path / "none.json")
    for text, message in (("{", "got no JSON"), (json.dumps({"rows": []}), "another kind of file")):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(FormatError, match=message):
            load_results(tmp_path / "r.json")
