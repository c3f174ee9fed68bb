r"""Whether two mathematical answers are the same.

1. Both are written alike: Unicode as LaTeX, no delimiters, spacing or wrappers, thousands closed up.
2. Equal texts are equal, and so are equal plain numbers (`18`, `18.0`, `$18`, `18 dollars`).
3. Lists and sets are equal if their parts are, in any order; tuples and intervals if they have the same brackets and
   their parts are equal in order; unions as lists. So a list is never right by one of its parts.
4. Everything else is math-verify's: parsed by its LaTeX grammar and compared by sympy.
5. math-verify compares decimals to six places, so that all tiny numbers are the same to it; where both are numbers they
   must also agree to five significant digits.

math-verify stops by SIGALRM, which works on the main thread alone, and not inside one long operation of an integer. It
runs without a limit here: call this in a process that can be killed (`flowtracer.evaluation.pool`).
"""

# ruff: noqa: RUF001 - the symbols of mathematics are what is looked for

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

from flowtracer.text.numbers import number

AGREEMENT = 1e-5
"""Numbers are the same up to this part of the larger."""

DEEPEST = 20
"""Brackets within brackets that are taken apart; answers of benchmarks have some three."""

Verify = Callable[[str, str], bool]
"""Says whether two answers are the same that are neither equal texts nor numbers nor lists."""


def same(gold: str, answer: str, *, tolerance: float | None = None) -> bool:
    """Whether an answer is the gold one.

    Args:
        gold: The right answer.
        answer: A model's.
        tolerance: How far a number may be off.
    """
    return _same(plain(gold), plain(answer), _verified, tolerance)


def written_alike(one: str, other: str) -> bool:
    """Whether two answers are the same without algebra (1 to 3): at once, where sympy may take for ever."""
    return _same(plain(one), plain(other), lambda one, other: False)


def _same(gold: str, answer: str, verify: Verify, tolerance: float | None = None) -> bool:
    if not gold or not answer:
        return False
    if _squeezed(gold) == _squeezed(answer):
        return True
    if _WORDS.fullmatch(gold) and _WORDS.fullmatch(answer):
        return gold.casefold() == answer.casefold()  # sympy would take letters for factors, in any order
    if _BASED.fullmatch(gold) and _BASED.fullmatch(answer):
        return False  # equal numerals to different bases are equal to math-verify
    one, other = number(gold), number(answer)
    if one is not None and other is not None:
        if one == other:
            return True
        if tolerance is not None:
            return abs(one - other) <= tolerance
    if max(_nesting(gold), _nesting(answer)) > DEEPEST:
        return verify(gold, answer)
    wanted, given = _structure(gold), _structure(answer)
    if wanted.brackets and wanted.brackets == given.brackets:
        return _same_parts(wanted, given, verify)
    if "list" in (wanted.brackets, given.brackets):
        named = _coordinates(given)
        return named is not None and wanted.brackets == "()" and _same_parts(wanted, named, verify)
    (name, value), (other_name, other_value) = _assigned(gold), _assigned(answer)
    if (name or other_name) and (not name or not other_name or name == other_name):
        return _same(value, other_value, verify, tolerance)
    return verify(gold, answer)


def _assigned(text: str) -> tuple[str, str]:
    """Name and value of `x = 3` or `f(x) = 2x`; no name where it is something else."""
    match = _ASSIGNED.fullmatch(text)
    return (_squeezed(match["name"]), match["value"]) if match else ("", text)


def _coordinates(values: _Structure) -> _Structure | None:
    """`x = 3, y = 4` as (3, 4), if each part has a name of its own."""
    pairs = [_assigned(part) for part in values.parts]
    named = len({name for name, _ in pairs}) == len(pairs) and all(name for name, _ in pairs)
    return _Structure("()", [value for _, value in pairs]) if named else None


_ASSIGNED = re.compile(
    r"(?P<name>[a-zA-Z]{1,2}\s*(?:_(?:\w|\{[^{}=]*\}))?\s*(?:\([a-z](?:\s*,\s*[a-z])*\))?)\s*=\s*(?P<value>[^=<>]+)"
)


_WORDS = re.compile(r"(?=.*[a-zA-Z]{3})[a-zA-Z]+(?:[ -][a-zA-Z]+)*")
_BASED = re.compile(r"[0-9A-Fa-f]+_\d+")


def _squeezed(text: str) -> str:
    """Without marks for words, and without space but between digits: 1 1/2 is not 11/2."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", _TEXT.sub(r"\1", text)).rstrip(".")


_TEXT = re.compile(r"\\(?:text|textrm|mathrm|mbox)\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class _Structure:
    brackets: str
    """"list", "union", the two brackets of a tuple or interval, or "" for one thing."""
    parts: Sequence[str]


def _same_parts(wanted: _Structure, given: _Structure, verify: Verify) -> bool:
    if len(wanted.parts) != len(given.parts):
        return False
    if len(wanted.brackets) == 2:
        return all(_same(*pair, verify) for pair in zip(wanted.parts, given.parts, strict=True))
    left = list(given.parts)
    for part in wanted.parts:
        # Equal text first: a comparison by sympy takes a tenth of a second.
        match = part if part in left else next((other for other in left if _same(part, other, verify)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _structure(text: str) -> _Structure:
    inside = text[2:-2] if text.startswith(r"\{") and _closes(text, r"\}") else None
    if text.startswith("{") and _closes(text, "}"):
        return _structure(text[1:-1].strip() or r"\emptyset")
    parts = _split(text if inside is None else inside, _SEPARATOR)
    parts = list(dict.fromkeys(sign for part in parts for sign in _signs(part)))
    if len(parts) > 1:
        return _Structure("list", parts)
    if inside is not None and parts:  # a set of one is that one
        return _structure(parts[0])
    if len(union := _split(text, _UNION)) > 1:
        return _Structure("union", union)
    if text[0] in "([" and text[-1] in ")]" and _closes(text, text[-1]):
        parts = _split(text[1:-1], _SEPARATOR)
        if len(parts) > 1:
            return _Structure(text[0] + text[-1], parts)
    return _Structure("", [text])


def _signs(part: str) -> list[str]:
    """Both values of a part with one plus or minus sign."""
    pieces = _PLUS_MINUS.split(part)
    return [part] if len(pieces) != 2 else [f"{pieces[0]}{sign}{pieces[1]}".lstrip("+ ") for sign in "+-"]


_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])\s*")
_SEPARATOR = re.compile(r"[,;]|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])")
_UNION = re.compile(r"\\cup(?![a-zA-Z])|(?<=[)\]}])\s*U\s*(?=[({\[\\])")
_BRACKET = re.compile(r"\\[{}]|[()\[\]{}]")
_OPENING = frozenset(["(", "[", "{", r"\{"])
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])(?!.*\b(?:and|or)\b)[^,;]*")
_GROUPED = re.compile(r"(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])")
_LOOSE = re.compile(r",\s|;|\b(?:and|or)\b")


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The parts between separators that stand outside of every bracket."""
    if _THOUSANDS.fullmatch(text):
        return [text]
    if _LOOSE.search(text) and not _BRACKET.search(text):  # then a comma without a space is one of thousands
        text = _GROUPED.sub(lambda match: match.group().replace(",", ""), text)
    depth, start, parts = 0, 0, []
    marks = [(match.start(), match.end(), match.group()) for match in _BRACKET.finditer(text)]
    marks += [(match.start(), match.end(), "") for match in separator.finditer(text)]
    for begin, end, bracket in sorted(marks):
        if bracket:
            depth += 1 if bracket in _OPENING else -1
        elif depth == 0:
            parts.append(text[start:begin])
            start = end
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _closes(text: str, last: str) -> bool:
    """The bracket that opens a text closes at its end, and not before."""
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += 1 if match.group() in _OPENING else -1
        if depth == 0:
            return match.end() == len(text) and match.group() == last
    return False


def _nesting(text: str) -> int:
    """How deep brackets stand within brackets."""
    steps = (1 if match.group() in _OPENING else -1 for match in _BRACKET.finditer(text))
    return max(accumulate(steps), default=0)


def _verified(gold: str, answer: str) -> bool:
    """What math-verify says, where numbers must agree in size too."""
    from math_verify import verify

    wanted, given = _parsed(gold), _parsed(answer)
    if not verify(wanted, given, allow_set_relation_comp=True, timeout_seconds=None):
        return False
    return "%" in gold + answer or _agree(wanted, given)


@functools.lru_cache(maxsize=256)  # parts of a list are compared with each other
def _parsed(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    forms = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    return parse(f"${text}$", forms, parsing_timeout=None)


def _agree(wanted: Sequence[Any], given: Sequence[Any]) -> bool:
    from sympy import Expr, N

    one, other = (
        [N(value, 20) for value in values if isinstance(value, Expr) and value.is_number] for values in (wanted, given)
    )
    if not one or not other or not (one[0].is_finite and other[0].is_finite):
        return True
    return bool(abs(one[0] - other[0]) <= AGREEMENT * max(abs(one[0]), abs(other[0])))


def plain(text: str) -> str:
    """An answer without what changes only its looks: one way to write each thing."""
    text = _SUPERSCRIPT.sub(lambda match: f"^{{{unicodedata.normalize('NFKC', match.group())}}}", text)
    for symbol, latex in _SYMBOLS.items():
        text = text.replace(symbol, latex)
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match['inside'] or match['braced'] or match['bare']}}}", text)
    text = _VULGAR.sub(_vulgar, text)
    text = unicodedata.normalize("NFKC", text)
    for pattern, written in _REWRITES:
        text = pattern.sub(written, text)
    text = _REPEATING.sub(_repeating, text.strip())
    before = None
    while text != before:
        before = text
        text = _WRAPPED.sub(r"\1", text).strip().rstrip(".,;").strip()
        if text.startswith("{") and _closes(text, "}"):
            text = text[1:-1].strip()
    return text.replace(" ", "") if _SPACED.fullmatch(text) else text


_SYMBOLS = {
    **{"−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/"},
    **{"∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm "},
    **{"°": r"^{\circ}", "∅": r"\emptyset ", "∈": r"\in ", "π": r"\pi ", "…": r"\ldots ", "％": r"\%"},
    **{"\N{NO-BREAK SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": r"\,", "\N{THIN SPACE}": r"\,"},
}
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_ROOT = re.compile(r"√\s*(?:\((?P<inside>[^()]*)\)|\{(?P<braced>[^{}]*)\}|(?P<bare>\d+(?:\.\d+)?|[a-zA-Z]))")
_VULGAR = re.compile("[¼½¾⅐-⅞]")
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), written)
    for pattern, written in [
        (r"(?<=\d),\\!\s*(?=\d{3})", ""),
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle)(?![a-zA-Z])\s*|\\!", ""),
        (r"\\\(|\\\)|\\\[|\\\]|(?<!\\)\$|\\\$", ""),
        (r"(?<!\\)%", r"\\%"),
        (r"(?<=\d)(?:\\,|\\;|\\ |\{,\})(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z]))|~", " "),
        (r"\\(?:text|textrm|mathrm|mbox)\{\s*,?\s*(and|or)\s*\}", r" \1 "),
        (r"\\\{\s*\\\}", r"\\emptyset "),
        (r"_\{(\d+)\}", r"_\1"),
        # As programs and calculators write it.
        (r"(?<![a-zA-Z\\\d.])(\d+(?:\.\d+)?)[eE]([-+]?\d+)(?![\d.a-zA-Z])", r"\1\\times 10^{\2}"),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<![a-zA-Z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
        (r"\*\*", "^"),
        (r"\\[dt]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"^\s*(-?\d+) +(\d+)/(\d+)\s*$", r"\1\\frac{\2}{\3}"),
    ]
)
_WRAPPED = re.compile(r"^\\(?:boxed|fbox|framebox|text|textbf|textit|mathbf|mathrm|mathit|mbox)\s*\{([^{}]*)\}$")
_SPACED = re.compile(r"-?\d{1,3}(?: \d{3})+")
_REPEATING = re.compile(r"(?P<sign>-?)(?P<whole>\d*)\.(?P<fixed>\d*)\\(?:overline|bar|dot)\s*\{?(?P<again>\d+)\}?")


def _vulgar(match: re.Match[str]) -> str:
    above, below = unicodedata.normalize("NFKC", match.group()).split("\N{FRACTION SLASH}")
    return rf"\frac{{{above}}}{{{below}}}"


def _repeating(match: re.Match[str]) -> str:
    r"""`0.1\overline{6}` as a fraction; math-verify would drop the part that repeats."""
    fixed, again = match["fixed"], match["again"]
    value = Fraction(int(f"{match['whole'] or 0}{fixed}{again}") - int(f"{match['whole'] or 0}{fixed}"))
    value /= 10 ** len(fixed) * (10 ** len(again) - 1)
    return rf"{match['sign']}\frac{{{value.numerator}}}{{{value.denominator}}}"
