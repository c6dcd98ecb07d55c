"""What is typed into the page stays: while a step is put together, and while the server is slow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.helpers.browser import IN_BROWSER, opened
from tests.helpers.page_server import PageServer

pytestmark = IN_BROWSER

# The library goes on a frame after it has put a step on the page: here a frame is long.
SLOW_FRAMES = "window.requestAnimationFrame = (then) => setTimeout(() => then(performance.now()), 400);"

ASKED = "**/gradio_api/*/*"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    found = PageServer(tmp_path_factory.mktemp("page"))
    yield found
    found.end()


@contextmanager
def held(page: Any) -> Iterator[None]:
    """The server's answers to the page come when this ends."""
    waiting: list[Any] = []
    page.route(ASKED, lambda asked: waiting.append(asked))
    yield
    page.wait_for_timeout(200)
    assert waiting
    # Those that wait go on.
    page.unroute(ASKED)


def field(page: Any, name: str) -> Any:
    return page.locator(f"#{name} textarea, #{name} input").first


@pytest.mark.parametrize(
    ("name", "opening", "typed"),
    [
        ("repo", ["#step-10-button"], "me/it"),
        ("prompt", ["#step-6-button"], "Hello"),
        ("layers", ["#step-5-button", "text=The edit"], "1-3"),
        ("max-kl", ["#step-4-button", "#step-4 >> text=Settings"], "0.5"),
        ("pasted", ["#step-2-button", "text=Paste prompts"], "one"),
        ("token", ["text=Device, numbers and access"], "a word"),
        ("hub-words", ["text=Search the Hub"], "qwen"),
        ("run-folder", ["text=New project, or open a run"], "runs/it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_typed_as_soon_as_a_field_is_there_stays(
    chromium: Any, server: PageServer, name: str, opening: list[str], typed: str
) -> None:
    with opened(chromium, server.address) as found:
        page = found.page
        page.wait_for_selector("#steps")
        page.evaluate(SLOW_FRAMES)
        for each in opening:
            page.click(each)
        field(page, name).fill(typed)
        page.wait_for_timeout(1200)
        assert field(page, name).input_value() == typed


def test_fields_are_there_when_their_projects_values_have_come(chromium: Any, server: PageServer) -> None:
    context = chromium.new_context()
    page = context.new_page()
    with held(page):
        page.goto(server.address)
        page.wait_for_selector("#model", state="attached")
        assert not page.is_visible("#model")
    page.wait_for_selector("#model")
    assert page.input_value("#project input")
    context.close()


def test_an_example_that_comes_late_leaves_what_is_typed(chromium: Any, server: PageServer) -> None:
    with opened(chromium, server.address) as found:
        page = found.page
        page.wait_for_selector("#steps")
        page.click("#step-6-button")
        page.fill("#prompt textarea", "")
        with held(page):
            page.click("#example-ordinary")
            page.fill("#prompt textarea", "my own")
        page.wait_for_timeout(1500)
        assert page.input_value("#prompt textarea") == "my own"
        page.click("#example-ordinary")
        page.wait_for_function("document.querySelector('#prompt textarea').value != 'my own'")


def test_what_is_typed_while_the_fields_follow_another_model_stays(chromium: Any, server: PageServer) -> None:
    with opened(chromium, server.address) as found:
        page = found.page
        page.wait_for_selector("#steps")
        page.click("#step-2-button")
        page.click("#step-1-button")
        with held(page):
            page.fill("#model input", "me/it")
            page.press("#model input", "Enter")
            page.click("#step-2-button")
            page.fill("#target input", "mine.txt")
            page.press("#target input", "Enter")
        page.wait_for_function("document.querySelector('#baseline input').value.startsWith('harmless')")
        assert page.input_value("#target input") == "mine.txt"
