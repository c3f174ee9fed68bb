r"""Where an answer's own cue begins: what announces the answer and says nothing of it.

1. A cue stands directly before the answer, but for white space, emphasis, quotes and maths delimiters: a box, an answer
   tag, `####`, a label ("A:", "Final answer:"), or "answer is" with the words that lead up to it in its sentence.
2. Cues may follow each other ("The answer is \boxed{18}"); all of them are one.
3. The white space in front of a cue belongs to it: the line break before "A:" announces the answer as "A:" does.

Each step looks at a window of fixed length, so hostile text costs no more.
"""

# ruff: noqa: RUF001 - full-width punctuation and curly quotes are what is looked for

from __future__ import annotations

import re

from flowtracer.text.span import CharSpan

_LONGEST = 120
"""Characters of a cue: "Therefore, the correct final answer to the question is" has 52."""

_BETWEEN = r"""[\s*_`"'“‘$(\[{:：=\\]*"""
_SAID = (
    r"(?:\b(?:so|thus|hence|therefore|finally|and|then)\b[,\s]*)*"
    r"(?:\b(?:the|our|my|his|her|their|its|this|correct|final|numerical|right)\b[\s*_]*)*"
    r"\banswer\b[*_]{0,2}(?:\s+(?:to|of|for)\s[^.!?\n]{0,60}?)?(?:\s+(?:is|equals|would\s+be|will\s+be|must\s+be)\b|\s*[:：=])"
)
_LABELLED = r"^[ \t>]*(?:#{1,3}[ \t]+)?[*_]{0,2}(?:(?i:final[ \t]+answer|answer|solution)|A)[*_]{0,2}[ \t]*[:：]"
_OPENED = r"\\(?:boxed|fbox)\s*\{|<answer>|#{4}"
_CUE = re.compile(rf"\s*(?:(?i:{_OPENED})|{_LABELLED}|(?i:{_SAID})){_BETWEEN}\Z", re.MULTILINE)


def cue_of(text: str, answer: CharSpan) -> CharSpan:
    """The characters of the cue, up to the answer's first; empty where the answer follows on without one."""
    start = answer.start
    while (found := _CUE.search(text, max(0, start - _LONGEST), start)) is not None:
        start = found.start()
    return CharSpan(start=start, stop=answer.start)
