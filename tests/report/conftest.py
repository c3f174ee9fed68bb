"""A real browser, offline: every page is a file that may ask for nothing."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        message = f"expected a browser on the path ({', '.join(NAMES)}), got none; install Debian's chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        # Containers have neither the privileges of a sandbox nor a GPU; the pages are our own.
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        launched = playwright.chromium.launch(executable_path=found, args=options)
        yield launched
        launched.close()


class Opened:
    """A page with everything that it asked for, said or refused."""

    def __init__(self, context):
        self.page = context.new_page()
        self.requests, self.messages, self.dialogs = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def go(self, file, fragment=""):
        self.page.goto("about:blank")
        self.page.goto(file.as_uri() + fragment)
        self.page.wait_for_selector("html[data-ready]", state="attached")
        return self

    def settle(self):
        """Wait until what was put in is drawn and written.

        Input comes with a frame, and the page writes its state 120 ms after the last change; timers of a page fire in
        the order of their times, so this holds however slow the machine is.
        """
        frames = "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 150)))"
        self.page.evaluate(f"new Promise((done) => {frames})")

    @property
    def fragment(self):
        """What stands behind the URL's hash, once it has settled."""
        self.settle()
        return self.page.evaluate("location.hash")

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture
def opened(browser):
    made = []

    def open_page(file, fragment="", **options):
        context = browser.new_context(
            offline=True, accept_downloads=True, **{"viewport": {"width": 1280, "height": 800}, **options}
        )
        made.append((context, Opened(context)))
        return made[-1][1].go(file, fragment)

    yield open_page
    for context, page in made:
        context.close()
        assert page.dialogs == [], "something ran that was text"
        assert page.messages == [], "a page has nothing to complain about"
        assert all(url.startswith(("file:", "about:", "blob:", "data:")) for url in page.requests)
