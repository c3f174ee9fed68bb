"""A small study from end to end, killed and gone on with."""

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowtracer.errors import FormatError, InputError
from flowtracer.rl.run import train
from flowtracer.study.differences import compare_runs
from flowtracer.study.logs import gather
from flowtracer.study.matrix import read_study
from flowtracer.study.results import load_results, read_curve
from flowtracer.study.runner import Job, in_own_process, run_study, train_job
from study_files import MACHINE, write_study
from tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("default::FutureWarning", "default::UserWarning", "default::DeprecationWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def run(study, folder, **options):
    results = folder / "small.json"
    return run_study(study, results=results, work=folder / "work", machine=MACHINE, **{"launch": train_job, **options})


def timeless(document):
    """Results without what no two runs share."""
    text = json.dumps(document)
    document = json.loads(text)
    for strategy in document["runs"].values():
        for curve in strategy["seeds"].values():
            curve["step_seconds"] = [step for step, _ in curve["step_seconds"]]
            curve["credit_seconds"] = [step for step, _ in curve["credit_seconds"]]
    return document


def test_a_study_runs_once_and_ends_the_same_after_an_interruption(model, tmp_path):
    study = read_study(write_study(tmp_path, model=model))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = []
    assert run(study, whole, on_done=lambda job, _: done.append((job.label, job.seed))) == []
    assert done == [("uniform", 0), ("flow", 0), ("uniform", 1), ("flow", 1)]
    document = load_results(whole / "small.json")
    curve = document["runs"]["flow"]["seeds"]["1"]
    assert [point[0] for point in curve["held_out"]] == [0, 1, 2]
    assert [point[0] for point in curve["reward"]] == [1, 2], "an evaluation takes no step's own line away"
    assert (curve["steps"], curve["machine"]) == (2, MACHINE)
    assert not list(whole.glob("work/**/checkpoint-*"))
    assert run(study, whole, on_done=lambda job, _: done.append(job)) == []
    assert len(done) == 4, "nothing runs twice"
    compared = compare_runs(document)
    assert [row.label for row in compared.runs] == ["uniform", "flow"]
    groups = {label: [str(whole / "work" / "small" / label)] for label in ("uniform", "flow")}
    by_logs = compare_runs(gather(groups, metric="held_out/accuracy", name="logs"))
    assert by_logs.notes == []
    for row, same in zip(compared.runs, by_logs.runs, strict=True):
        assert (row.final_difference, row.average, row.p) == (same.final_difference, same.average, same.p)
        assert row.step_seconds == same.step_seconds

    def interrupted(job):
        def stop(line):
            if (job.folder / "checkpoint-1").exists():
                raise KeyboardInterrupt

        if (job.label, job.seed) == ("flow", 0):
            job.folder.mkdir(parents=True)
            train(job.study.run(job.label, job.seed, job.folder), on_log=stop)
        train_job(job)

    with pytest.raises(KeyboardInterrupt):
        run(study, parts, launch=interrupted)
    assert run(study, parts) == []
    assert timeless(load_results(parts / "small.json")) == timeless(document)


def test_a_killed_process_goes_on_from_its_checkpoint(model, tmp_path):
    study = read_study(write_study(tmp_path, model=model, credit='{ name = "random" }', baseline="random", steps=3))
    whole, killed = (
        Job(study=study, label="random", seed=0, folder=tmp_path / name / "seed-0") for name in ("whole", "killed")
    )
    train_job(whole)
    with ThreadPoolExecutor(1) as pool:
        process = pool.submit(in_own_process, killed)
        while not process.done() and not list(killed.folder.glob("checkpoint-*/trainer_state.json")):
            time.sleep(0.01)
        os.kill(int((killed.folder / ".lock.pid").read_text()), signal.SIGKILL)
        with pytest.raises(subprocess.CalledProcessError):
            process.result()
    log = killed.folder / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 2, "rew')  # the kill came in the middle of a line
    (killed.folder / "checkpoint-9").mkdir()  # and in the middle of a checkpoint
    train_job(killed)
    curves = [read_curve(job.folder / "log.jsonl") for job in (whole, killed)]
    assert [point[0] for point in curves[1]["reward"]] == [1, 2, 3]
    for name in ("held_out", "reward", "response_tokens", "steps", "epochs", "tokens"):
        assert curves[0][name] == curves[1][name]


def test_a_run_that_fails_is_named_and_the_others_go_on(model, tmp_path):
    study = read_study(write_study(tmp_path, model=model, seeds=1))

    def launch(job):
        if job.label == "uniform":
            raise InputError("expected luck")
        train_job(job)

    ((job, error),) = run(study, tmp_path, launch=launch)
    assert (job.label, str(error)) == ("uniform", "expected luck")
    assert list(load_results(tmp_path / "small.json")["runs"]["flow"]["seeds"]) == ["0"]


def test_other_options_are_refused(model, tmp_path):
    study = read_study(write_study(tmp_path, model=model, seeds=1, credit='{ name = "uniform" }'))
    run(study, tmp_path)
    other = read_study(write_study(tmp_path, model=model, seeds=1, credit='{ name = "uniform" }', steps=3))
    with pytest.raises(InputError, match=r"'uniform' in .*grpo .*\"max_steps\": 3.* instead of .*\"max_steps\": 2"):
        run(other, tmp_path)
    (tmp_path / "small.json").unlink()
    ((_, error),) = run(other, tmp_path)
    assert "uniform' was made with, got grpo" in str(error)


def test_one_runner_at_a_time(model, tmp_path):
    study = read_study(write_study(tmp_path, model=model, seeds=1))

    def launch(job):
        with pytest.raises(InputError, match="no other process writes to"):
            run(study, tmp_path)
        refused.append(job.label)

    refused = []
    with pytest.raises(FormatError, match="expected a log of training steps"):
        run(study, tmp_path, launch=launch)
    assert "uniform" in refused
