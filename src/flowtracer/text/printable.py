"""Text as it may be shown: nothing in it steers a terminal, whatever a model wrote."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text with everything that could steer a terminal made visible as a dot; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else "·" for c in text)


def one_line(text: str, longest: int = 600) -> str:
    """Printable text on one line, runs of white space as one space, cut to a length."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def well_formed(text: str) -> str:
    """The text with halves of surrogate pairs joined or replaced: Arrow takes well-formed Unicode only."""
    return text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
