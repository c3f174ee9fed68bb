"""Text that steers nothing."""

from flowtracer.text.printable import one_line, printable


def test_what_steers_a_terminal_is_a_dot_and_line_breaks_stay():
    assert printable("a\x1b[2J\r\u202eb\nc") == "a·[2J··b\nc"


def test_one_line_folds_white_space_and_is_cut_to_its_length():
    assert one_line("  a\n\t b \x07") == "a b ·"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"
