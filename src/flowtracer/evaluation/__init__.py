"""Benchmarks: load problems, sample responses, grade them, and say avg@k and pass@k with intervals."""

from flowtracer.evaluation.base import Answered, Benchmark, Grade
from flowtracer.evaluation.equality import same
from flowtracer.evaluation.folder import Draw, EvaluationFolder, by_model, draws_of
from flowtracer.evaluation.grading import grade
from flowtracer.evaluation.loading import Suite, load_suite
from flowtracer.evaluation.pool import GradingPool
from flowtracer.evaluation.registry import BENCHMARKS
from flowtracer.evaluation.responses import load_responses
from flowtracer.evaluation.summary import BenchmarkResult, pass_at, summarise

__all__ = [
    "BENCHMARKS",
    "Answered",
    "Benchmark",
    "BenchmarkResult",
    "Draw",
    "EvaluationFolder",
    "Grade",
    "GradingPool",
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
