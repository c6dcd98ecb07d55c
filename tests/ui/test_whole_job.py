"""The whole job in a browser, on the embedded model: from a model's name to a verified checkpoint and its report.

A wrong input at every step, a tab that is closed and a server that is ended in the middle, and names that would
like to be scripts.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browser import IN_BROWSER
from tests.helpers.page_server import PageServer

HOSTILE = "<img src=x onerror=window.taken=1>${window.taken=1}{{taken}}"

pytestmark = [*IN_BROWSER, pytest.mark.slow]


class Visit:
    """A tab with the page; what it asked elsewhere, and what went wrong in it, is noted."""

    def __init__(self, browser: Any, address: str, problems: list[str]) -> None:
        self.page = browser.new_page(viewport={"width": 1200, "height": 900})
        self.page.set_default_timeout(90_000)
        origin = address.split("/?")[0]
        self.page.on("console", lambda line: line.type == "error" and problems.append(line.text))
        self.page.on("pageerror", lambda error: problems.append(str(error)))
        self.page.on("dialog", lambda dialog: problems.append("a dialog"))
        self.page.on("request", lambda asked: self._asked(asked.url, origin, problems))
        self.page.goto(address)
        self.page.wait_for_selector("#steps")

    @staticmethod
    def _asked(url: str, origin: str, problems: list[str]) -> None:
        if not url.startswith((origin, "data:", "blob:", "about:")):
            problems.append(f"asked {url}")

    def step(self, number: int) -> None:
        self.page.click(f"#step-{number}-button")

    def press(self, key: str) -> None:
        self.page.click(f"#start-{key}")

    def text(self, where: str) -> str:
        found = self.page.query_selector(where)
        return "" if found is None else str(found.inner_text())

    def wait(self, where: str, pattern: str, seconds: float = 90) -> str:
        """The text of an element when it is as wanted."""
        for _ in range(int(seconds * 5)):
            if re.search(pattern, self.text(where)):
                return self.text(where)
            self.page.wait_for_timeout(200)
        raise AssertionError(f"{where}: {self.text(where)!r} has no {pattern!r}")

    def choose(self, where: str, value: str) -> None:
        """Type a value into a list of choices."""
        field = self.page.locator(f"{where} input").first
        field.click()
        field.fill(value)
        field.press("Enter")
        field.press("Tab")
        self.page.wait_for_timeout(600)

    def write(self, where: str, value: str) -> None:
        """Type a value into a field, open it first where it is folded."""
        self.page.locator(f"{where} textarea, {where} input").first.fill(value)
        self.page.wait_for_timeout(600)

    def unfold(self, title: str) -> None:
        self.page.get_by_role("button", name=title).click()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    found = PageServer(tmp_path)
    yield found
    found.end()


def listening(port: int) -> set[str]:
    """The addresses that something listens on at a port, as the system says."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and int(local.split(":")[1], 16) == port:
                found.add(local.split(":")[0])
    return found


def test_from_a_model_to_a_verified_checkpoint_and_its_report(
    chromium: Any, server: PageServer, tmp_path: Path
) -> None:
    problems: list[str] = []
    visit = Visit(chromium, server.address, problems)
    assert listening(server.port) == {"0100007F"}

    # A wrong input at each step, before anything was found.
    visit.choose("#model", HOSTILE)
    visit.step(3)
    visit.press("inspect")
    assert "<img" in visit.wait("#status-inspect", "It stopped after")
    visit.step(1)
    visit.wait("#step-1 .we-field-error", "img")
    visit.choose("#model", "organism")
    visit.step(2)
    visit.page.wait_for_function("document.querySelector('#target input')?.value == 'organism:refused:train'")
    visit.choose("#target", "organism:refusd")
    visit.page.click("#look-prompts")
    visit.wait("#seen-prompts", "did you mean 'refused'")
    visit.choose("#target", "organism:refused:train")
    visit.page.click("#look-prompts")
    visit.wait("#seen-prompts", r"Prompts that the model refuses: \d+ prompts")
    visit.unfold("What is measured before and after")
    visit.write("#limit", "12")
    visit.step(6)
    visit.write("#prompt", "Hello")
    visit.page.click("#send")
    visit.wait("#said-chat", "find a direction first")
    for step, key, said in (
        (7, "bake", "step 4"),
        (8, "verify", "step 7"),
        (9, "report", "step 7"),
        (10, "dry-run", "step 7"),
    ):
        visit.step(step)
        visit.press(key)
        visit.wait(f"#said-{key}", said)
    visit.step(4)
    visit.unfold("Settings")
    visit.write("#max-kl", "-1")
    visit.press("find")
    visit.wait("#status-find", "It stopped after.*max_kl")
    visit.wait("#step-4 .we-field-error", "max_kl")
    visit.write("#max-kl", "0.1")

    # Found, while the tab is closed and the server ended.
    command = visit.page.input_value("#command-find textarea")
    visit.press("find")
    visit.wait("#status-find", "so far")
    visit.page.close()
    server.end()
    again = PageServer(tmp_path)
    try:
        visit = Visit(chromium, again.address, problems)
        visit.page.wait_for_selector("#step-4-button[aria-selected=true]")
        assert "layer 3" in visit.wait("#status-find", "Done in")
        assert "find-3.safetensors" in command
        assert (tmp_path / command.split("--out ")[1]).is_file()
        visit.step(5)
        assert "keeps the bounds" in visit.wait("#choice", "Candidates")

        # Tried, and baked at that strength.
        visit.step(6)
        visit.page.click("#example-refused")
        visit.page.wait_for_function("document.querySelector('#prompt textarea').value")
        visit.page.click("#send")
        visit.wait("#said-chat", "Loading")
        visit.page.wait_for_function("!document.querySelector('#prompt textarea').value")
        visit.page.fill("#prompt textarea", "the next one")
        assert "I cannot" in visit.wait("#turns", r"tokens[\s\S]*tokens")
        assert visit.page.input_value("#prompt textarea") == "the next one"
        visit.step(5)
        visit.unfold("The edit")
        visit.write("#layers", "9-99")
        visit.step(7)
        visit.press("bake")
        visit.wait("#said-bake", "more than organism has")
        visit.step(5)
        visit.write("#layers", "")
        visit.step(7)
        visit.press("bake")
        assert "complete" in visit.wait("#status-bake", "Done in")
        visit.step(8)
        visit.press("verify")
        assert "All checks passed" in visit.wait("#status-verify", "Done in")
        visit.step(9)
        visit.press("report")
        visit.wait("#status-report", "Done in")
        report = visit.page.frame_locator("iframe.we-report")
        assert "organism" in report.locator("h1").first.inner_text()
        visit.unfold("The card")
        assert "weight-edit" in visit.wait("#card", "license")
        visit.step(10)
        visit.write("#repo", "no name")
        visit.press("dry-run")
        visit.wait("#status-dry-run", "It stopped after")
        assert not visit.page.is_visible("#start-push")
        assert not visit.page.evaluate("window.taken")
    finally:
        again.end()
    assert problems == []
    made = sorted((tmp_path / "projects").rglob("weight_edit.json"))
    assert len(made) == 1
