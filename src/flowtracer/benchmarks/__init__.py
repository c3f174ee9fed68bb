"""Benchmarks: load problems, sample responses, grade them, and say avg@k and pass@k with intervals."""

from flowtracer.benchmarks.base import Answered, Benchmark, Grade
from flowtracer.benchmarks.equality import same
from flowtracer.benchmarks.folder import Draw, EvaluationFolder, by_model, draws_of
from flowtracer.benchmarks.grading import grade
from flowtracer.benchmarks.loading import Suite, load_suite
from flowtracer.benchmarks.pool import GradingPool
from flowtracer.benchmarks.registry import BENCHMARKS
from flowtracer.benchmarks.responses import load_responses
from flowtracer.benchmarks.summary import Result, pass_at, summarise

__all__ = [
    "BENCHMARKS",
    "Answered",
    "Benchmark",
    "Draw",
    "EvaluationFolder",
    "Grade",
    "GradingPool",
    "Result",
    "Suite",
    "by_model",
    "draws_of",
    "grade",
    "load_responses",
    "load_suite",
    "pass_at",
    "same",
    "summarise",
]
