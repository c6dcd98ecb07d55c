"""A page in Chromium, for tests marked `browser`: what it says on its console, and what it asks of any network."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
"""Debian's browser; playwright's own is not looked for."""

IN_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or find_spec("playwright") is None, reason="needs Chromium and playwright: make browser"
    ),
]
"""The marks of tests that open a page: `pytestmark = IN_BROWSER`."""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests of a session."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Opened:
    """An open page.

    Attributes:
        page: playwright's.
        errors: what it said on its console as an error or a warning, and exceptions that nobody caught.
        requests: every address that it asked for, its own first.
        dialogs: what it asked the user; nothing here ever should.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def accessibility(self) -> list[str]:
        """The violations that axe-core finds, a line each."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


@contextmanager
def opened(browser: Any, address: str, *, width: int = 1280, height: int = 800, **settings: Any) -> Iterator[Opened]:
    """A page of an address in a window of its own.

    Args:
        settings: of playwright's context, such as `color_scheme="dark"` or `java_script_enabled=False`.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, **settings)
    found = Opened(context.new_page())

    def asked(dialog: Any) -> None:
        found.dialogs.append(dialog.message)
        dialog.dismiss()

    found.page.on("console", lambda said: found.errors.append(said.text) if said.type in ("error", "warning") else None)
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("dialog", asked)
    try:
        found.page.goto(address)
        yield found
    finally:
        context.close()
