"""The page: one HTML file that loads nothing, and runs no script but those that stand in it."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from weight_edit.errors import UsageError
from weight_edit.report.figure import Commands, Figure, Folded, Notes, Section, Table
from weight_edit.report.sections.answers import Answers
from weight_edit.report.sections.certificates import Certificate
from weight_edit.report.theme import CONFIG
from weight_edit.utils.json import json_safe
from weight_edit.version import __version__


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows.

    Attributes:
        title: its heading.
        deed: what was edited, in sentences.
        listed: whether each of these is of another run.
        finding: what came of it, a sentence; may be empty.
        overview: the picture of the first screen.
        costs: divergence and loss, in a line.
        certificates: what was checked.
        problems: what is wrong, in sentences.
        limits: what is not shown.
        sections: what follows.
        answers: the answers, side by side.
        last: what stands at the end.
        missing: what could not be read.
    """

    title: str
    deed: Sequence[str]
    listed: bool
    finding: str
    overview: Figure | None
    costs: str
    certificates: Sequence[Certificate]
    problems: Sequence[str]
    limits: Sequence[str]
    sections: Sequence[Section]
    answers: Answers
    last: Sequence[Section]
    missing: Sequence[str]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All pictures, in their order."""
        first = () if self.overview is None else (self.overview,)
        return (*first, *(figure for section in self.sections for figure in section.figures))


def html(page: Page) -> str:
    """The page as HTML.

    Whatever stands in a run is text here: the template escapes all of it, the pictures' data are JSON in which no tag
    can begin, and the policy in the head lets no script run but the two of the page itself, each by its digest.
    """
    style = _asset("page.css") + _heights(page.figures)
    scripts = [_as_script(_library()), _as_script(_asset("page.js"))]
    return _template().render(
        page=page,
        style=Markup(style),
        scripts=[Markup(each) for each in scripts],
        policy="; ".join(
            (
                "default-src 'none'",
                f"script-src {' '.join(_digest(each) for each in scripts)}",
                f"style-src {_digest(style)}",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        figures=Markup(_as_data(_specs(page.figures))),
        version=__version__,
    )


def _specs(figures: Sequence[Figure]) -> dict[str, Any]:
    return {
        "config": CONFIG,
        "specs": {figure.name: figure.spec for figure in figures},
        "narrow": {figure.name: figure.narrow for figure in figures if figure.narrow is not None},
    }


def _as_data(value: Mapping[str, Any]) -> str:
    """JSON in which no tag begins or ends."""
    said = json.dumps(json_safe(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return said.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _as_script(code: str) -> str:
    """A script's text that ends where its tag does."""
    if "</script" in code.lower():
        raise UsageError("the library of the pictures cannot stand in a page; install another release of vl-convert")
    return code.replace("<!--", "\\x3c!--")


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _heights(figures: Sequence[Figure]) -> str:
    """Room for each picture before it is drawn, so that nothing jumps."""
    known = ((figure.name, figure.spec.get("height")) for figure in figures)
    return "".join(
        f"#fig-{name} .chart{{min-height:{height + 24}px}}" for name, height in known if isinstance(height, int)
    )


@cache
def _library() -> str:
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


@cache
def _asset(name: str) -> str:
    return (files("weight_edit.report") / "assets" / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _template() -> Any:
    room = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    room.globals["kind"] = _kind
    return room.from_string(_asset("page.html.jinja"))


def _kind(part: object) -> str:
    return {Figure: "figure", Table: "table", Notes: "notes", Commands: "commands", Folded: "folded"}[type(part)]
