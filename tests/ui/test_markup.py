"""Figures in words: a document of others may hold anything in their places."""

from typing import Any

import pytest

from weight_edit.ui import markup

STRANGE = (None, "x", [], {}, True, float("nan"), 10**400, float("inf"))


def test_a_rate_is_shown_with_its_interval() -> None:
    known = {"value": 0.03, "low": 0.01, "high": 0.07, "count": 3, "total": 96}
    assert markup.rate(known) == "0.03 (0.01 to 0.07), 3 of 96"


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:8])
def test_what_is_no_figure_is_not_shown_as_one(value: Any) -> None:
    assert markup.rate({"value": 0.5, "low": value, "high": 0.6, "count": 1, "total": 2}) == "0.50, 1 of 2"
    assert markup.rate({"value": value, "low": 0.1, "high": 0.6}) == "not measured"
    assert markup.number(value) == markup.size(value) == markup.seconds(value) == "–"
    assert markup.seconds({"low": value, "high": 2}) == "–"


def test_backticks_are_code_and_the_rest_stays_text() -> None:
    assert markup.code("a `<b>` c") == "a <code>&lt;b&gt;</code> c"
    assert "<dt>&lt;i&gt;</dt><dd>x <code>y</code></dd>" in markup.glossary({"<i>": "x `y`"})
    assert markup.glossary({}) == ""
