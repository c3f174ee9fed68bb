"""Runs of anybody's trainer: their logs as transformers writes them, paired or not, damaged, short and empty."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from transformers import TrainerState
from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.errors import InputError
from flowtracer.study.differences import compare_runs
from flowtracer.study.logs import gather, refuse_study
from flowtracer.study.results import load_results, save_results
from flowtracer.study.statistics import difference, student_interval
from flowtracer.study.tables import markdown
from study_files import document_of

STEPS = (10, 20, 30)
finite = st.floats(-100, 100, width=32)


def write_state(file, values, *, steps=STEPS, metric="reward", **more):
    """The state of a run whose log has these values."""
    history = [
        {"loss": 0.5, metric: float(value), "step_time": 2.0, "epoch": step / 40, "step": step, **more}
        for step, value in zip(steps, values, strict=True)
    ]
    history.append({"train_runtime": 3.0, "train_loss": 0.5, "epoch": 1.0, "step": steps[-1]})
    file.parent.mkdir(parents=True, exist_ok=True)
    TrainerState(log_history=history, global_step=steps[-1], max_steps=steps[-1]).save_to_json(str(file))


def write_runs(folder, values_SN, *, names="seed-{}", inside="checkpoint-30/", **more):
    for number, values in enumerate(values_SN):
        write_state(folder / names.format(number) / f"{inside}trainer_state.json", values, **more)


def gathered(folder, *labels, metric="reward"):
    return gather({label: [str(folder / label / "*")] for label in labels}, metric=metric, name="runs")


A, B = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.3]]), np.array([[0.1, 0.4, 0.5], [0.2, 0.5, 0.7]])


@given(*[arrays.arrays(np.float64, (4,), elements=finite)] * 2)
def test_differences_are_those_of_the_t_tests(one_N, other_N):
    apart_N = one_N - other_N
    if min(values.std() for values in (one_N, other_N, apart_N)) < 1e-3:
        return
    for paired, expected in (
        (True, stats.ttest_rel(one_N, other_N)),
        (False, stats.ttest_ind(one_N, other_N, equal_var=False)),
    ):
        found, bounds = difference(one_N, other_N, paired=paired), expected.confidence_interval()
        assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
        assert (found.interval.low, found.interval.high) == pytest.approx((bounds.low, bounds.high))


def test_runs_that_share_seeds_are_paired_by_them(tmp_path):
    write_runs(tmp_path / "a", A)
    write_runs(tmp_path / "b", B, inside="")
    document = gathered(tmp_path, "a", "b")
    assert (document["paired"], document["notes"]) == (True, [])
    found = compare_runs(document)
    assert (found.seeds, found.steps, found.baseline) == ([0, 1], 30, "a")
    assert found.evaluated_N.tolist() == [10, 20, 30]
    _, b = found.runs
    np.testing.assert_array_equal(b.values_SN, B)
    assert b.final_difference == difference(B[:, 2], A[:, 2], paired=True).interval
    areas_S = (B - A) @ [0.25, 0.5, 0.25]
    assert b.average_difference.mean == pytest.approx(areas_S.mean())
    assert b.step_seconds == 2.0
    text = markdown(found)
    assert "reward at 3 steps, 10 to 30, 2 seeds" in text
    assert "| run | step 10 | step 20 | step 30 |" in text
    assert "| b minus a | +0.000 [+0.000, +0.000] | +0.200 [+0.200, +0.200] |" in text
    assert "in credit" not in text, "no log says it"


def test_where_no_seeds_are_shared_all_runs_count_and_it_is_said(tmp_path):
    write_runs(tmp_path / "a", A, names="first-{}")
    write_runs(tmp_path / "b", np.concatenate([B, B + 0.1]))
    document = gathered(tmp_path, "a", "b")
    assert document["notes"] == [
        "differences are not paired: not every run has a seed of its own in its path (seed-0 ...)"
    ]
    found = compare_runs(document)
    b = found.runs[1]
    assert (found.seeds, len(b.values_SN)) == ([], 4)
    assert b.final_difference == difference(b.values_SN[:, 2], A[:, 2], paired=False).interval
    assert "2 and 4 runs" in markdown(found)


def test_a_seed_that_not_all_labels_have_is_left_out_by_name(tmp_path):
    write_runs(tmp_path / "a", A)
    write_runs(tmp_path / "b", np.concatenate([B, B]))
    document = gathered(tmp_path, "a", "b")
    assert list(document["runs"]["b"]["seeds"]) == ["0", "1"]
    assert ["seed-2: seed 2 is not" in note for note in document["notes"]] == [True, False]


def test_the_seed_may_stand_above_the_run(tmp_path):
    for seed in (3, 4):
        for label, values in (("a", A), ("b", B)):
            write_state(tmp_path / f"Seed_{seed}" / label / "trainer_state.json", values[seed - 3])
    groups = {label: [str(tmp_path / "*" / label)] for label in ("a", "b")}
    assert compare_runs(gather(groups, metric="reward", name="runs")).seeds == [3, 4]
    again = gather(groups, metric="reward", name="runs", baseline="b")
    assert compare_runs(again).base.label == "b"


def test_steps_that_differ_leave_the_common_ones(tmp_path):
    write_runs(tmp_path / "a", A)
    write_runs(tmp_path / "b", B[:, :2], steps=(5, 20))
    document = gathered(tmp_path, "a", "b")
    assert compare_runs(document).evaluated_N.tolist() == [20]
    assert any(note.startswith("steps differ: compared at the 1 of 4") for note in document["notes"])
    write_runs(tmp_path / "b", B[:, :2], steps=(5, 15))
    with pytest.raises(InputError, match=r"a step at which every run has logged 'reward', got none; .* 5 to 15"):
        gathered(tmp_path, "a", "b")


def test_one_seed_has_no_interval_and_it_is_said(tmp_path):
    write_runs(tmp_path / "a", A[:1])
    write_runs(tmp_path / "b", B[:1])
    document = gathered(tmp_path, "a", "b")
    assert document["notes"] == ["a has one run, and so no interval", "b has one run, and so no interval"]
    assert "| b | 0.500 | +0.200 |" in markdown(compare_runs(document))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"log_history": [{"reward": 1}]}', b"\xff"])
def test_what_is_damaged_is_named_and_the_checkpoint_before_it_read(tmp_path, content):
    write_runs(tmp_path / "a", A)
    write_runs(tmp_path / "b", B)
    broken = tmp_path / "b" / "seed-0" / "checkpoint-40" / "trainer_state.json"
    broken.parent.mkdir()
    broken.write_bytes(content)
    document = gathered(tmp_path, "a", "b")
    assert [note.split(":")[0] for note in document["notes"]] == [str(broken)]
    assert compare_runs(document).seeds == [0, 1]
    shutil.rmtree(tmp_path / "b" / "seed-0" / "checkpoint-30")
    document = gathered(tmp_path, "a", "b")
    assert f"{tmp_path / 'b' / 'seed-0'}: no log that can be read, skipped" in document["notes"]
    shutil.rmtree(tmp_path / "b" / "seed-1")
    with pytest.raises(InputError, match="a run of 'b' with a log that can be read, got none"):
        gathered(tmp_path, "a", "b")


def test_a_folder_of_runs_stands_for_them_and_what_is_no_run_for_nothing(tmp_path):
    write_runs(tmp_path / "a", A)
    write_runs(tmp_path / "b", B)
    (tmp_path / "b" / "plots").mkdir()
    groups = {label: [str(tmp_path / label), str(tmp_path / label / "seed-*")] for label in ("a", "b")}
    assert compare_runs(gather(groups, metric="loss", name="runs")).seeds == [0, 1]


def test_mistakes_are_named(tmp_path):
    write_runs(tmp_path / "a", A, note="text", flag=True)
    write_runs(tmp_path / "b", B)
    with pytest.raises(InputError, match="got 'rewards'; they have epoch, loss, reward, step_time, train_loss"):
        gathered(tmp_path, "a", "b", metric="rewards")
    with pytest.raises(InputError, match="'note'"):
        gathered(tmp_path, "a", "b", metric="note")
    with pytest.raises(InputError, match="got none for 'c' at"):
        gathered(tmp_path, "a", "c")
    with pytest.raises(InputError, match="two labels or more"):
        gathered(tmp_path, "a")
    with pytest.raises(InputError, match="a baseline among a, b, got 'c'"):
        gather({"a": [], "b": []}, metric="reward", name="runs", baseline="c")


def test_values_that_are_no_numbers_are_not_logged(tmp_path):
    write_runs(tmp_path / "a", [[0.1, float("nan"), 0.3]])
    write_runs(tmp_path / "b", B[:1])
    assert compare_runs(gathered(tmp_path, "a", "b")).evaluated_N.tolist() == [10, 30]


def test_a_studys_results_are_not_written_over(tmp_path):
    file = tmp_path / "small.json"
    save_results(file, document_of({"uniform": [[0.5]]}))
    with pytest.raises(InputError, match="that of a study"):
        refuse_study(file)
    write_runs(tmp_path / "a", A)
    write_runs(tmp_path / "b", B)
    document = gathered(tmp_path, "a", "b")
    save_results(file, document)
    refuse_study(file)
    assert load_results(file) == json.loads(json.dumps(document))


def test_the_command_writes_table_picture_and_results(tmp_path):
    write_runs(tmp_path / "a", A)
    write_runs(tmp_path / "b", B)
    given = ["study", "--results", str(tmp_path / "out")]
    runs = [f"a={tmp_path}/a/seed-0", f"b={tmp_path}/b/*", f"a={tmp_path}/a/seed-1"]
    done = CliRunner().invoke(app, [*given, *(word for run in runs for word in ("--runs", run)), "--name", "mine"])
    assert done.exit_code == 0, done.output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"mine.{e}" for e in ("json", "md", "svg", "png")}
    assert "reward at 3 steps, 10 to 30, 2 seeds" in done.output
    again = CliRunner().invoke(app, [*given, "--report", "mine", "--json"])
    (line,) = again.stdout.splitlines()
    assert json.loads(line)["runs"][1]["final_difference"]["mean"] == pytest.approx(0.3)
    for wrong, message in (("a", "LABEL=FOLDERS"), ("=a", "LABEL=FOLDERS"), ("a/b=c", "LABEL=FOLDERS")):
        assert message in str(CliRunner().invoke(app, [*given, "--runs", wrong]).exception)


def test_the_mean_of_one_is_a_number_without_bounds():
    assert np.isnan([student_interval(np.array([0.5])).low, difference(A[0], B[0, :1], paired=False).p]).all()
