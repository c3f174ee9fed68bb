"""Supervised examples for nano: problems of the train split, with the responses of each task's teacher.

Every example is drawn from its own seed, so any stretch of the stream can be drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tokenizer import ASSISTANT, USER

from flowtracer.tasks import Countdown, Forks, Planted, Problem, Task
from flowtracer.tasks.base import split_of
from flowtracer.tasks.countdown_search import Attempt, Flaws, draw_attempt, search
from flowtracer.tasks.forks import PLACES

# What reinforcement is to mend: a teacher that loses patience, takes a near miss for a hit and uses numbers twice. Its
# patience is short enough that greedy decoding gives up too, after the fourth dead end; the other two show in samples.
FLAWS = Flaws(give_up=0.15, false_yes=0.3, near=2, reuse=0.1)
DEAD_ENDS = 6
# Dead ends that miss by little teach more about where a solution lies than random ones.
AIM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """How Countdown's teacher searches, and whether that of forks slips."""

    aim: int
    flaws: Flaws
    slips: bool


# In the order of training: the skill takes long to learn, the flaws do not.
STAGES = (
    Teacher(aim=AIM, flaws=Flaws(), slips=False),
    Teacher(aim=AIM, flaws=FLAWS, slips=True),
)

COUNTDOWN = {
    "easy": Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=10, max_target=50),
    "medium": Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20, max_target=100),
    "hard": Countdown(brief=True, min_numbers=4, max_numbers=4, max_value=10, max_target=50),
}
PLANTED = {
    "easy": Planted(chains=2, length=3),
    "medium": Planted(chains=2, length=4),
    "hard": Planted(chains=3, length=4),
}
FORKS = {place: Forks(place=place) for place in PLACES} | {
    f"{place}, hard": Forks(place=place, ways=3, steps=6, asides=3) for place in PLACES
}
GIVEN = {difficulty: replace(task, free=False) for difficulty, task in FORKS.items()}
TASKS: dict[str, Mapping[str, Task]] = {
    "countdown": COUNTDOWN,
    "planted": PLANTED,
    "forks": FORKS,
    "forks_given": GIVEN,
}
# Shares of the examples, for each of the packaged models.
MIXTURES: dict[str, dict[tuple[str, str], float]] = {}
MIXTURES["nano"] = {
    ("countdown", "easy"): 0.1,
    ("countdown", "medium"): 0.3,
    ("countdown", "hard"): 0.1,
    ("planted", "easy"): 0.15,
    ("planted", "medium"): 0.2,
    ("planted", "hard"): 0.15,
}
for _name in ("forks", "forks_given"):
    MIXTURES[_name] = {(_name, difficulty): 0.09 if "hard" in difficulty else 0.16 for difficulty in FORKS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Token ids of a prompt in the chat template and of a response with its end."""

    prompt: list[int]
    response: list[int]


def examples(tokenizer: Any, n: int, *, seed: str, teacher: Teacher, mixture: str = "nano") -> Iterator[Example]:
    """`n` examples of a mixture, drawn from `seed`."""
    rng = Random(seed)
    pairs = [draw(rng, teacher, MIXTURES[mixture]) for _ in range(n)]
    # What the chat template makes of one message, at a fraction of its time.
    prompts = [f"{USER}{problem.prompt[0]['content']}{ASSISTANT}" for problem, _ in pairs]
    responses = [response + tokenizer.eos_token for _, response in pairs]
    encoded = zip(tokenizer(prompts)["input_ids"], tokenizer(responses)["input_ids"], strict=True)
    for prompt, response in encoded:
        yield Example(prompt=prompt, response=response)


def draw(rng: Random, teacher: Teacher, mixture: Mapping[tuple[str, str], float]) -> tuple[Problem, str]:
    """A problem of the train split and its teacher's response."""
    ((task, difficulty),) = rng.choices(list(mixture), weights=list(mixture.values()))
    while True:
        if task == "planted":
            planted = PLANTED[difficulty]
            problem = planted.draw(rng)
            if split_of(problem.key) == "train":
                return problem, planted.work(problem, seed=rng.getrandbits(32)).text
        elif task in ("forks", "forks_given"):
            forks = TASKS[task][difficulty]
            problem = forks.draw(rng)
            if split_of(problem.key) == "train":
                return problem, forks.work(problem, seed=rng.getrandbits(32), slips=teacher.slips).text
        elif (drawn := _countdown(COUNTDOWN[difficulty], rng)) is not None:
            problem, solution = drawn
            numbers, target = problem.facts["numbers"], problem.facts["target"]
            how = {"dead_ends": DEAD_ENDS, "aim": teacher.aim, "flaws": teacher.flaws}
            return problem, search(numbers, target, solution, rng, **how).text


def _countdown(task: Countdown, rng: Random) -> tuple[Problem, Attempt] | None:
    """A problem drawn as reasoning-gym draws, which takes milliseconds for each, and its solution."""
    numbers = [rng.randint(1, task.max_value) for _ in range(task.max_numbers)]
    solution = draw_attempt(numbers, rng)
    if not task.min_target <= solution.value <= task.max_target:
        return None
    problem = task.pose(numbers, solution.value, solution.expression)
    return None if problem is None or split_of(problem.key) != "train" else (problem, solution)
