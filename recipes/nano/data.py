"""Supervised examples for nano: problems of the train split, with the responses of each task's teacher.

Every example is drawn from its own seed, so any stretch of the stream can be drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from tokenizer import ASSISTANT, USER

from flowtracer.tasks import Countdown, Planted, Problem
from flowtracer.tasks.base import split_of
from flowtracer.tasks.countdown_search import Flaws, draw_attempt, search

# What reinforcement is to mend: a teacher that loses patience and takes a near miss for a hit. Both are frequent
# enough that greedy decoding shows them: it gives up after the fourth dead end and believes most near misses.
FLAWS = Flaws(give_up=0.15, false_yes=0.6, near=2, reuse=0.1)
DEAD_ENDS = 6

COUNTDOWN = {
    "easy": Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=10, max_target=50),
    "medium": Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20, max_target=100),
    "hard": Countdown(brief=True, min_numbers=4, max_numbers=4, max_value=10, max_target=50),
}
PLANTED = {
    "easy": Planted(chains=2, length=2),
    "medium": Planted(chains=2, length=3),
    "hard": Planted(chains=3, length=3),
}
# Shares of the examples. Copying by name is what takes longest to learn, so planted has half.
MIXTURE = {
    ("countdown", "easy"): 0.15,
    ("countdown", "medium"): 0.25,
    ("countdown", "hard"): 0.1,
    ("planted", "easy"): 0.1,
    ("planted", "medium"): 0.25,
    ("planted", "hard"): 0.15,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Token ids of a prompt in the chat template and of a response with its end."""

    prompt: list[int]
    response: list[int]


def examples(tokenizer: Any, n: int, *, seed: str, flaws: Flaws) -> Iterator[Example]:
    """`n` examples drawn from `seed`, of a Countdown teacher with these flaws."""
    rng = Random(seed)  # noqa: S311
    pairs = [_draw(rng, flaws) for _ in range(n)]
    # What the chat template makes of one message, at a fraction of its time.
    prompts = [f"{USER}{problem.prompt[0]['content']}{ASSISTANT}" for problem, _ in pairs]
    responses = [response + tokenizer.eos_token for _, response in pairs]
    encoded = zip(tokenizer(prompts)["input_ids"], tokenizer(responses)["input_ids"], strict=True)
    for prompt, response in encoded:
        yield Example(prompt=prompt, response=response)


def _draw(rng: Random, flaws: Flaws) -> tuple[Problem, str]:
    """A problem of the train split and its teacher's response."""
    ((task, difficulty),) = rng.choices(list(MIXTURE), weights=list(MIXTURE.values()))
    draw = _countdown(COUNTDOWN[difficulty], rng, flaws) if task == "countdown" else _planted(PLANTED[difficulty], rng)
    return draw if draw is not None and split_of(draw[0].key) == "train" else _draw(rng, flaws)


def _countdown(task: Countdown, rng: Random, flaws: Flaws) -> tuple[Problem, str] | None:
    # Drawn as reasoning-gym draws, which takes milliseconds for each, where training needs hundreds of thousands.
    numbers = [rng.randint(1, task.max_value) for _ in range(task.max_numbers)]
    solution = draw_attempt(numbers, rng)
    problem = task.pose(numbers, solution.value, solution.expression)
    if problem is None or not task.min_target <= solution.value <= task.max_target:
        return None
    worked = search(numbers, solution.value, solution, rng, dead_ends=DEAD_ENDS, flaws=flaws)
    return problem, worked.text


def _planted(task: Planted, rng: Random) -> tuple[Problem, str]:
    problem = task.draw(rng)
    return problem, task.work(problem, seed=rng.getrandbits(32)).text
