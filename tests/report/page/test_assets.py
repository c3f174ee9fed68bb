"""The bundle that is shipped is the one that the sources give."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from flowtracer.report.page.html import ASSETS, bundle

ROOT = Path(__file__).parents[3]
WEB = ROOT / "web"
BUDGET = 250_000
"""Bytes of everything in a page but its data."""


def web_digest():
    digest = hashlib.sha256()
    for file in sorted((WEB / "src").iterdir(), key=lambda file: file.name):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def test_the_bundle_was_built_from_these_sources():
    first = bundle().split("\n", 1)[0]
    assert web_digest() in first, "web/src has changed: run `make page` and commit the bundle"


@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="needs `npm ci` in web/; the digest is checked anyway")
def test_building_again_gives_the_same_bundle(tmp_path):
    node = shutil.which("node")
    subprocess.run([node, WEB / "build.mjs", tmp_path / "page.js"], check=True)
    assert (tmp_path / "page.js").read_bytes() == (ASSETS / "page.js").read_bytes()


@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="needs `npm ci` in web/")
def test_the_sources_are_well_typed():
    done = subprocess.run(
        [shutil.which("npm"), "run", "--silent", "check"], cwd=WEB, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_everything_but_the_data_fits_the_budget():
    assert sum(file.stat().st_size for file in ASSETS.iterdir()) <= BUDGET


def test_the_bundle_fetches_nothing_and_builds_no_markup():
    script = bundle()
    for forbidden in ("fetch(", "XMLHttpRequest", "import(", "eval(", "innerHTML", "outerHTML", "document.write"):
        assert forbidden not in script, forbidden
    assert "http://" not in script.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in script
