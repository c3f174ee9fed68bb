"""Grading in processes: the right grades in order, hung and dead processes replaced."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import flowtracer
from flowtracer.errors import FlowTracerError, InputError
from flowtracer.evaluation.base import Answered, Grade
from flowtracer.evaluation.grading import grade
from flowtracer.evaluation.pool import READY, GradingPool

RIGHT = Answered(rule="math", gold="7", response=r"\boxed{\frac{14}{2}}")
WRONG = Answered(rule="number", gold="7", response="#### 8\u2028")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(flowtracer.__file__).parents[1])}
ENDLESS = Answered(rule="math", gold="7", response=r"\boxed{9^{9^{9^{9^{9}}}} - 10^{10^{10}}!}")


def test_grades_are_those_of_this_process_in_order():
    with GradingPool(workers=2, limit=60.0) as pool:
        assert pool.grade([RIGHT, WRONG] * 5) == [grade(RIGHT), grade(WRONG)] * 5
        assert pool.grade([]) == []


def test_a_hung_process_is_killed_and_replaced():
    with GradingPool(limit=3.0) as pool:
        assert pool.grade([RIGHT, ENDLESS, RIGHT]) == [
            grade(RIGHT),
            Grade(correct=False, reason="timeout"),
            grade(RIGHT),
        ]


@pytest.mark.skipif(sys.platform == "win32", reason="processes end otherwise there")
def test_a_dead_process_is_replaced():
    with GradingPool(limit=60.0) as pool:
        pool.grade([RIGHT])
        process = pool._workers[0]._process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert pool.grade([RIGHT, RIGHT]) == [Grade(correct=False, reason="crashed"), grade(RIGHT)]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on computing there")
def test_a_process_whose_pool_was_killed_ends_by_itself():
    command = [sys.executable, "-m", "flowtracer.evaluation.worker", "1"]
    question = json.dumps(asdict(ENDLESS)) + "\n"
    alone = subprocess.run(command, input=question, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert alone.returncode == -signal.SIGXCPU
    assert alone.stdout.split() == [READY]


def test_modules_of_the_folder_that_one_is_in_are_not_loaded(tmp_path, monkeypatch):
    (tmp_path / "math_verify.py").write_text("raise SystemExit('not me')")
    monkeypatch.chdir(tmp_path)
    with GradingPool(limit=60.0) as pool:
        assert pool.grade([RIGHT]) == [grade(RIGHT)]


def test_closing_ends_the_processes():
    pool = GradingPool(limit=60.0)
    pool.grade([WRONG])
    process = pool._workers[0]._process
    pool.close()
    pool.close()
    assert process.poll() is not None


def test_a_process_that_does_not_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", sys.executable + " that is not")
    with pytest.raises((FlowTracerError, FileNotFoundError)):
        GradingPool().grade([RIGHT])


def test_what_cannot_be():
    with pytest.raises(InputError, match="at least one worker"):
        GradingPool(workers=0)
    with pytest.raises(InputError, match="limit above 0"):
        GradingPool(limit=0.0)
