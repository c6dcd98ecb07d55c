"""The edit in the weights: what was changed, and what is left, tensor by tensor."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.report.charts import curves, layers, look, quantitative
from weight_edit.report.figure import Figure, Folded, Notes, Section, Table
from weight_edit.report.numbers import counted, small
from weight_edit.report.run_record import RunRecord
from weight_edit.report.values import at, entries, number, rows, text, whole

_LAYER = re.compile(r"\.(\d{1,4})\.")
_MOST = 3000
_LISTED = 400
_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
"""Dtype -> binary digits of its numbers; rounding moves a number by half a unit of the last one at most."""


def tensors(record: RunRecord) -> Section | None:
    """Each edited tensor, from the verification."""
    found = rows(at(record.verification, "integrity_report.edits"), _MOST)
    if not found:
        return None
    parts: list[Any] = [Notes(tuple(_said(record))), *_left(found, record.verification), *_listed(found)]
    return Section(name="weights", title="In the weights", parts=tuple(parts))


def _said(record: RunRecord) -> Iterator[str]:
    report = entries(at(record.verification, "integrity_report"))
    edited, equal = whole(report.get("tensors_edited")), whole(report.get("tensors_equal"))
    compared = whole(report.get("bytes_compared"))
    if edited is not None and equal is not None:
        size = "" if compared is None else f" ({compared / 1e6:,.1f} MB compared)"
        yield f"{counted(edited, 'tensor')} edited; {counted(equal, 'other')} equal to the base's, byte for byte{size}."
    again = entries(record.verification.get("edited_tensors"))
    exact, of = whole(again.get("bit_for_bit")), whole(again.get("compared"))
    if exact is not None and of is not None:
        yield f"Made again of the base and the directions, {exact} of {of} edited tensors are the same bit for bit."
    left, at_tensor = (
        number(record.verification.get("left_in_weights")),
        text(record.verification.get("left_in_weights_at")),
    )
    if left is not None:
        where = f", in {at_tensor}" if at_tensor else ""
        yield f"Of what the tensors write along the direction, {small(left)} is left at most{where}."


def _expected(found: list[dict[str, Any]], verification: Mapping[str, Any]) -> str:
    """A sentence on what has to be left of the direction; empty where that is not known."""
    storage = text(verification.get("storage_dtype"), 40) or "?"
    quantised = [value for row in found if (value := number(row.get("rounding"))) is not None]
    if verification.get("complete") is False:
        return " The edit is partial: most of this is left by intention."
    if quantised:
        return f" Rounding to the quantised format moves a tensor by up to {small(max(quantised))} of its size."
    if storage in _BITS:
        most = small(2.0 ** -_BITS[storage])
        return f" Rounding to {storage} moves a number by up to {most} of itself: up to about that, it is rounding."
    return ""


def _left(found: list[dict[str, Any]], verification: Mapping[str, Any]) -> Iterator[Figure]:
    shown = [
        (layer, kind, value, row)
        for row in found
        if (value := number(row.get("left"))) is not None and value > 0
        for layer, kind in [_place(text(row.get("tensor")) or "?")]
        if layer is not None
    ]
    if len(shown) < 2:
        return
    kinds = list(dict.fromkeys(kind for _, kind, _, _ in shown))[:6]
    data: list[dict[str, Any]] = [
        {"series": kind, "x": layer, "y": value, "low": None, "high": None}
        for kind in kinds
        for layer, of, value, _ in sorted(shown, key=lambda each: each[0])
        if of == kind
    ]
    x = layers([row["x"] for row in data], "layer")
    y = quantitative("y", "left of V^T W, relative", percent=False)
    y["scale"] = {"type": "log", "nice": True}
    y["axis"] |= {"format": ".0e", "tickCount": 4}
    table = [
        (text(row.get("tensor")) or "?", small(value), small(number(row.get("left_exact"))))
        for _, _, value, row in shown
    ]
    yield Figure(
        name="left-in-weights",
        title="What is left of the direction in each edited tensor",
        reading=f"The scale is logarithmic.{_expected(found, verification)}",
        alt="Curves over layers of the share of the direction that edited tensors still write, on a logarithmic scale.",
        spec=curves(data, look(kinds), x, y, intervals=False),
        table=Table(("tensor", "left", "before rounding"), tuple(table[:_LISTED])),
    )


def _place(name: str) -> tuple[int | None, str]:
    """The layer of a tensor and what is the same in all layers of its name."""
    matched = _LAYER.search(name)
    if matched is None:
        return None, name
    return int(matched[1]), name[matched.end() :].removesuffix(".weight")


def _listed(found: list[dict[str, Any]]) -> Iterator[Folded]:
    rows_ = []
    has_change = any(number(row.get("change")) is not None for row in found)
    for row in found[:_LISTED]:
        name = text(row.get("tensor")) or "?"
        rounding = text(at(row, "rounding.format")) or text(row.get("rounding")) or "as the base is stored"
        rows_.append(
            (
                name,
                f"{whole(row.get('entries')) or 0:,}",
                *((small(number(row.get("change"))),) if has_change else ()),
                small(number(row.get("left"))),
                rounding,
            )
        )
    change = ("relative change",) if has_change else ()
    more = len(found) - len(rows_)
    table = Table(("tensor", "numbers", *change, "left of V^T W", "rounding"), tuple(rows_))
    first = f"; {more} more are in run.json" if more > 0 else ""
    yield Folded(f"All edited tensors ({len(rows_)}{first})", table)
