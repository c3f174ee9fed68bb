"""Input as hostile as files and models make it, out of a `random.Random`: hypothesis's own in tests, a seeded one for
the million of `tests/fuzz/run.py`.
"""

# ruff: noqa: RUF001 - look-alikes of ASCII signs are what is tried

from random import Random

PIECES = [
    *("\\boxed{", "\\boxed ", "\\fbox{", "\\\\boxed{", "{", "}", "\\{", "\\}", "\\boxed{}", "\\boxed{7}"),
    *("<answer>", "</answer>", "<ANSWER>", "####", "#### ", "### ", "answer is ", "The answer is ", "answer:", "A:"),
    *("Final answer: ", "**Answer:** ", "**", "*", "_", "$", "$$", "\\(", "\\)", "\\[", "\\]", "`", '"', "“", "”"),
    *("\n", "\r", "\r\n", "\u2028", " ", "\t", "\u00a0", "\u200b", "\ufeff", "\0", ".", "。", "! ", "? ", "...", "…"),
    *("7", "-8", "−8", "1,000", "1{,}000", "3.5", "1/2", "1 1/2", "½", "\\frac{1}{2}", "٣", "²", "十二", "9" * 30),
    *("x", "is", "so", "the", "and", "or", "é", "e\u0301", "ß", "İ", "🧮", "\u202e", "<|im_end|>", "</s>", "<|", "|>"),
    *("x = ", "+", "-", "*", "/", "^", "**9", "(", ")", "[", "]", ",", ";", ":", "%", "\\pm ", "\\cup ", "\\text{and}"),
    *("\\sqrt", "√", "\\overline{", "1e999", "0x1f", "_2", "<<1+1=2>>", "</script>", "__import__('os')", "\ud800"),
    *("../", "\\", "/", "~", "con", "nul", ".", "..", "C:", "%00", "A" * 300),
]
"""What rules of the answer, steps, words, numbers, mathematics and paths look for, and what they trip over."""

FIELDS = ("prompt", "response", "completion", "input", "output", "question", "problem", "solution", "answer", "id")
FIELDS += ("metadata", "is_correct", "ground_truth", "gold", "role", "content", "options", "error", "rule", "score")


def text(random: Random, most: int = 24) -> str:
    """Pieces and single characters of any script, surrogates included."""
    some = random.randint(0, random.choice([2, 8, most]))
    return "".join(
        random.choice(PIECES) if random.random() < 0.8 else chr(random.randint(0, random.choice([127, 0x10FFFF])))
        for _ in range(some)
    )


def value(random: Random, deep: int = 3) -> object:
    """A JSON value of any kind."""
    kind = random.randint(0, 9 if deep else 6)
    if kind > 7:
        return [value(random, deep - 1) for _ in range(random.randint(0, 3))]
    if kind == 7:
        return record(random, deep - 1)
    plain = (None, random.random() < 0.5, random.randint(-9, 99), 10 ** random.randint(0, 400), random.random())
    extreme = random.choice([float("nan"), float("inf"), -0.0, 1e308, "", "messages"])
    return (*plain, extreme, text(random, 8))[kind]


def record(random: Random, deep: int = 3) -> dict[str, object]:
    """An object whose fields are those that records have."""
    return {random.choice(FIELDS): value(random, deep) for _ in range(random.randint(0, 5))}


def damaged(random: Random, content: bytes) -> bytes:
    """Bytes that are not quite `content`: cut off, turned over, put in, left out or written over."""
    data = bytearray(content)
    for _ in range(random.randint(1, 3)):
        at, kind = random.randint(0, len(data)), random.randint(0, 4)
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << random.randint(0, 7)
        elif kind == 2:
            data[at:at] = bytes(random.randint(0, 255) for _ in range(random.randint(1, 8)))
        elif kind == 3:
            del data[at : at + random.randint(1, 64)]
        else:
            data[at : at + 4] = bytes(random.randint(0, 255) for _ in range(4))
    return bytes(data)
