"""Pictures of the page: a short, a 1K and an 8K trace, light and dark, on a large and a small screen.

    python scripts/screenshots.py --out runs/screenshots

The short trace is a real model's; the long ones are made (benchmarks/made.py), so that no long forward is needed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from flowtracer.checks.masking import with_hub_effects
from flowtracer.trace.records import read_rollouts
from flowtracer.trace.trace import Rollout, Trace
from flowtracer.tracing.tracer import Tracer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from made import made_trace, sums  # noqa: E402 - it stands beside the benchmarks, not in the package

SCREENS = {"wide": (1440, 900), "small": (1024, 700)}


def traces(model: str) -> dict[str, Trace]:
    rollouts = [r for r in read_rollouts(ROOT / "examples/rollouts.jsonl") if isinstance(r, Rollout)]
    chosen = next(rollout for rollout in rollouts if rollout.id == "train-right")
    tracer = Tracer.from_pretrained(model)
    short = tracer.trace_batch([chosen])[0]
    if not isinstance(short, Trace):
        raise SystemExit(f"expected a trace of {chosen.id}, got {short}")
    known = {"is_correct": True, "reward": 1.0}
    return {
        "short": with_hub_effects(tracer.model, short),
        "1k": made_trace(*sums(58), answer=3, metadata={"id": "sums-1k", **known}),
        "8k": made_trace(*sums(440), answer=4, metadata={"id": "sums-8k", **known}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/screenshots"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--docs", action="store_true", help="refresh the pictures of docs/ as well")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("expected chromium on the path, got none; scripts/browser.sh installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        for name, trace in traces(options.model).items():
            file = trace.to_html(options.out / f"{name}.html")
            for screen, (width, height) in SCREENS.items():
                for theme in ("light", "dark"):
                    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                    page.goto(file.resolve().as_uri())
                    page.wait_for_selector("html[data-ready]", state="attached")
                    page.wait_for_timeout(300)  # the first frame after the data are in
                    page.screenshot(path=options.out / f"{name}-{screen}-{theme}.png")
                    page.close()
        browser.close()
    if options.docs:
        for theme in ("light", "dark"):
            with Image.open(options.out / f"short-wide-{theme}.png") as image:
                image.convert("RGB").save(ROOT / f"docs/page-{theme}.webp", lossless=True, method=6)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
