"""Training at the terminal."""

import io

from rich.console import Console

from flowtracer.report.terminal.live import TrainingView, sparkline


def test_sparkline():
    assert sparkline([], 5) == ""
    assert sparkline([1.0], 5) == "▁"
    assert sparkline([0.0, 1.0], 5) == "▁█"
    assert sparkline([float(n) for n in range(8)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, 0.0, 7.0, 7.0], 2) == "▁█"
    assert len(sparkline([float(n) for n in range(1000)], 40)) == 40


def feed(console):
    view = TrainingView(console)
    assert not view.started
    with view:
        view.add({"step": 0, "max_steps": 4, "held_out/accuracy": 0.5})
        view.add({"step": 1, "max_steps": 4, "reward": 0.25, "completions/mean_length": 80.0})
    assert view.started
    return console.file.getvalue()


def test_a_terminal_shows_curves_and_a_bar():
    shown = feed(Console(file=io.StringIO(), force_terminal=True, width=120))
    for text in ("held-out accuracy", "50.0%", "0.25", "80", "1/4"):
        assert text in shown


def test_a_file_gets_plain_lines():
    shown = feed(Console(file=io.StringIO(), width=120))
    assert "step    0  held-out accuracy 50.0%" in shown
    assert "\x1b" not in shown
