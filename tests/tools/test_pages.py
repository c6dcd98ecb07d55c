"""Parts of the documents that are made from the package: sources, settings, and links that hold on the site."""

from dataclasses import replace

import pytest
from pages import attributes, body, settings, sources, summary
from pydantic import Field
from site_pages import REPOSITORY, with_links_of_the_site

from weight_edit.utils.registry import Named
from weight_edit.utils.settings import Section


class Options(Section):
    """Settings.

    Attributes:
        clip: a quantile, as in arXiv 2603.27518
            and elsewhere.
        rows, columns: of the map.
    """

    clip: float | None = None
    rows: int = 4
    columns: list[int] = Field(default_factory=lambda: [1, 2])


def method(given: object, options: Options) -> None:
    """Difference of means (arXiv 2406.11717).

    `a - b`, as elsewhere (jim-plus/llm-abliteration).

    Raises:
        UsageError: never.
    """


ONE = Named(
    what="method",
    name="it",
    summary="Difference of means (arXiv 2406.11717).",
    options=Options,
    function=method,
)


def test_sources_are_what_docstrings_name() -> None:
    assert [link[1 : link.index("]")] for link in sources(ONE)] == [
        "2406.11717",
        "2603.27518",
        "jim-plus/llm-abliteration",
    ]


def test_the_paper_of_the_registry_comes_first() -> None:
    one = replace(ONE, papers=("2606.13720",))
    assert [link[1:11] for link in sources(one)][:2] == ["2606.13720", "2406.11717"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Difference of means (arXiv 2406.11717).", "Difference of means."),
        (
            "Components (representation engineering, arXiv 2310.01405), or others.",
            "Components (representation engineering), or others.",
        ),
        ("Ablate, and keep lengths (jim-plus/llm-abliteration).", "Ablate, and keep lengths."),
        ("Remove `x -> x - s V max(V^T x, 0)`; runtime only.", "Remove `x -> x - s V max(V^T x, 0)`; runtime only."),
    ],
)
def test_the_paper_is_not_said_twice(line: str, shown: str) -> None:
    assert summary(replace(ONE, summary=line)) == shown


def test_settings_have_defaults_and_descriptions() -> None:
    assert attributes(Options.__doc__.replace("\n    ", "\n"))["columns"] == "of the map."
    assert settings(ONE) == [
        "- `clip` = `null`: a quantile, as in arXiv 2603.27518 and elsewhere.",
        "- `rows` = `4`: of the map.",
        "- `columns` = `[1, 2]`: of the map.",
    ]


def test_the_body_is_what_stands_before_errors() -> None:
    assert body("First.\n\nSecond\nthird.\n\nRaises:\n    UsageError: never.") == "Second\nthird."


def test_links_hold_on_the_site() -> None:
    there = {"index.md", "methods.md", "images/a.svg", "recipes/README.md", "recipes/som.yaml", "ARCHITECTURE.md"}
    text = "![a](docs/images/a.svg) [m](docs/methods.md#papers) [c](weight_edit/x.py) [r](recipes/README.md) [x](https://x.org)"
    assert with_links_of_the_site(text, "README.md", "index.md", there) == (
        "![a](images/a.svg) [m](methods.md#papers) c [r](recipes/README.md) [x](https://x.org)"
    )
    below = with_links_of_the_site(
        "[s](som.yaml) [m](../docs/methods.md)", "recipes/README.md", "recipes/README.md", there
    )
    assert below == "[s](som.yaml) [m](../methods.md)"
    assert with_links_of_the_site("[a](../README.md)", "docs/methods.md", "methods.md", there) == "[a](index.md)"
    assert with_links_of_the_site("[x](https://x.org)", "README.md", "index.md", there) == "[x](https://x.org)"
    assert "SECURITY.md" in REPOSITORY
