"""The reward of DAPO-Math-17K: 1 where the response's answer is the right integer, else 0.

The answer is looked up as credit looks it up, so that what is rewarded is what the flow ends in.
"""

from __future__ import annotations

import re
from typing import Any

from flowtracer.text.answer import Answer, locate_answer

_NOT_IN_A_NUMBER = re.compile(r"\\(?:text|mathrm|boxed)|\\[,;! ]|[\s,${}]")


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any) -> float:
    """What verl calls for each response."""
    answer = locate_answer(solution_str)
    said = answer.text if isinstance(answer, Answer) else ""
    return float(_integer(said) is not None and _integer(said) == _integer(ground_truth))


def _integer(text: str) -> int | None:
    plain = _NOT_IN_A_NUMBER.sub("", text.rpartition("=")[2])
    return int(plain) if re.fullmatch(r"[+-]?[0-9]{1,30}", plain) else None
