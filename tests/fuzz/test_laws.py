"""Some ten thousand hostile inputs to the laws of `laws.py`: most by their seeds, some by hypothesis, which shrinks."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import LAWS

SEEDS = 800
"""Of each law. `run.py` tries as many as one likes."""


@pytest.mark.parametrize("name", LAWS)
def test_law(name, tmp_path):
    for seed in range(SEEDS):
        try:
            LAWS[name](Random(seed), tmp_path)
        except Exception as error:
            raise AssertionError(f"python tests/fuzz/run.py --law {name} --seed {seed} --cases 1") from error


@pytest.mark.parametrize("name", LAWS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random=st.randoms(use_true_random=False))
def test_law_by_hypothesis(name, random, tmp_path):
    LAWS[name](random, tmp_path)


def test_the_million_runs(capsys):
    import run

    assert run.main(["--cases", "26", "--law", "answer", "--law", "grades"]) == 0
    assert "answer: 13 cases, 0 failed" in capsys.readouterr().out
