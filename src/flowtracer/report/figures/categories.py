"""What kind of thing a token is, from its text alone."""

# ruff: noqa: RUF001 - look-alikes are what this is about

from __future__ import annotations

import re

PUNCTUATION = "punctuation, newlines"
NUMBER = "numbers"
OPERATOR = "operators"
VARIABLE = "variables"
WORD = "words"
CATEGORIES = (PUNCTUATION, NUMBER, OPERATOR, VARIABLE, WORD)

_MARKUP = re.compile(r"<[|/]?\w+\|?>|\[/?[A-Z]+\]")
"""`<|im_start|>`, `</think>`, `[INST]`: marks of a chat template."""
_NUMBER = re.compile(r"[-+]?[$€£¥]?[\d.,]*\d[\d.,]*%?|[¼-¾⅐-⅞]")
_OPERATOR = re.compile(
    r"[-+*/^=<>~×÷·∙⋅±∓√∑∏∫≤≥≠≈≡∝∈∉⊂∪∩∧∨¬→←↔⇒⇔−∗∘|&%]+"
    r"|\\(?:frac|dfrac|tfrac|times|cdot|div|pm|mp|sqrt|sum|prod|int|leq?|geq?|neq?|lt|gt|approx|equiv|to|mod|bmod|binom)"
)
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|pi|rho|sigma|tau|phi|psi|omega"
# The article and the pronoun are the only English words of one letter.
_VARIABLE = re.compile(r"(?!(?:a|A|I)\Z)[-−]?\d*[A-Za-zΑ-Ωα-ω𝐀-𝟋](?:_?\{?\d+\}?|['′])?" + rf"|\\(?:{_GREEK})")


def category(text: str) -> str:
    """The category of a token's text, one of `CATEGORIES`.

    Single letters but "a", "A" and "I" are variables, also with an index (x1) or a factor (3x); signs alone are
    operators; what has no letter, digit or sign of arithmetic is punctuation, as are white space and a chat
    template's marks.
    """
    text = text.strip().strip("⏎␣")
    if not text or _MARKUP.fullmatch(text):
        return PUNCTUATION
    for name, pattern in ((NUMBER, _NUMBER), (OPERATOR, _OPERATOR), (VARIABLE, _VARIABLE)):
        if pattern.fullmatch(text):
            return name
    return WORD if any(c.isalpha() for c in text) else PUNCTUATION
