"""Benchmarks: load problems, sample responses, grade them, and say avg@k and pass@k with intervals."""

from flowtracer.benchmarks.base import Answered, Benchmark, Grade
from flowtracer.benchmarks.registry import BENCHMARKS

__all__ = ["BENCHMARKS", "Answered", "Benchmark", "Grade"]
