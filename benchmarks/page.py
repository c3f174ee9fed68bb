"""The page of one trace at 8,192 tokens and 100,000 edges, in a real browser, beside its budgets.

    python benchmarks/page.py

Hover and zoom are the work of one step: the event's own handlers, the frame's drawing, layout, and the canvases read
back, so that nothing is left for later. Each is the median and the 95th percentile of many steps over the whole text.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from flowtracer.study.machine import stamp
from made import made_trace, sums

BUDGETS = {
    "page without data, bytes": 250_000,
    "data, bytes": 1_000_000,
    "first paint, ms": 2_000,
    "hover, ms": 20,
    "zoom, ms": 50,
}
TOKENS, EDGES = 8_192, 100_000

STEP = """
async ([steps, kind]) => {
  const box = document.querySelector("#arcs");
  const { left, top, width, height } = box.getBoundingClientRect();
  const canvases = [...document.querySelectorAll("canvas")].map((canvas) => canvas.getContext("2d"));
  const times = [];
  for (let step = 0; step < steps; step++) {
    const place = { clientX: left + (((step * 7919) % 997) / 997) * width, clientY: top + height / 2, bubbles: true };
    const event = kind === "hover"
      ? new PointerEvent("pointermove", place)
      : new WheelEvent("wheel", { ...place, deltaY: step % 24 < 12 ? -40 : 40, cancelable: true });
    // Callbacks of one frame run in the order they were asked for: ours, the page's own, ours again.
    let begun = 0;
    requestAnimationFrame(() => (begun = performance.now()));
    const started = performance.now();
    box.dispatchEvent(event);
    const handled = performance.now() - started;
    await new Promise((done) => {
      requestAnimationFrame(() => {
        document.body.offsetHeight;
        for (const canvas of canvases) canvas.getImageData(0, 0, 1, 1);
        times.push(handled + performance.now() - begun);
        done();
      });
    });
  }
  return times;
}
"""


def measure(steps: int, rounds: int) -> dict[str, Any]:
    prompt, sentences = _text(TOKENS)
    trace = made_trace(prompt, sentences, max_edges=EDGES)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = trace.to_html(Path(folder) / "page.html")
        content = file.read_text(encoding="utf-8")
        data = re.search(r'id="trace-data">([^<]*)<', content)
        assert data is not None
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        paints, ready, hover, zoom = [], [], [], []
        for _ in range(rounds):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(file.as_uri())
            page.wait_for_selector("html[data-ready]", state="attached")
            ready.append(page.evaluate("performance.now()"))
            page.wait_for_timeout(300)
            paints.append(_first_paint(page))
            hover += page.evaluate(STEP, [steps, "hover"])
            zoom += page.evaluate(STEP, [steps, "zoom"])
            page.close()
        version = browser.version
        browser.close()
    return {
        "machine": {**stamp(), "chromium": version},
        "tokens": len(trace),
        "edges": len(trace.edges),
        "budgets": BUDGETS,
        "measured": {
            "page without data, bytes": len(content.encode()) - len(data.group(1)),
            "data, bytes": len(data.group(1)),
            "first paint, ms": _spread(paints),
            "ready, ms": _spread(ready),
            "hover, ms": _spread(hover),
            "zoom, ms": _spread(zoom),
        },
    }


def _text(tokens: int) -> tuple[list[str], list[list[str]]]:
    """Sums of exactly so many tokens."""
    prompt, sentences = sums(tokens // 12)
    total = len(prompt) + sum(map(len, sentences))
    while total > tokens:
        first = sentences[0]
        cut = min(len(first), total - tokens)
        total -= cut
        sentences = sentences[1:] if cut == len(first) else [first[cut:], *sentences[1:]]
    return prompt, sentences


def _first_paint(page: Page) -> float:
    return page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")


def _spread(values: list[float]) -> dict[str, float]:
    ranked = sorted(values)
    return {
        "median": round(statistics.median(ranked), 2),
        "p95": round(ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))], 2),
    }


def table(result: dict[str, Any]) -> Table:
    title = f"T = {result['tokens']:,}, {result['edges']:,} edges"
    rows = Table("", "median", "95 %", "budget", title=title, title_justify="left")
    for name, value in result["measured"].items():
        median, high = (value["median"], value["p95"]) if isinstance(value, dict) else (value, "")
        budget = BUDGETS.get(name)
        rows.add_row(name, f"{median:,}", f"{high:,}" if high != "" else "", "" if budget is None else f"{budget:,}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/page.json"))
    options = parser.parse_args()
    result = measure(options.steps, options.rounds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    Console().print(table(result))


if __name__ == "__main__":
    main()
