"""Tables as HTML for a notebook, with the figures of each row as dots and intervals on one axis, in inline SVG.

Nothing is loaded, no script is in it, and every text is escaped. Colours are those of the page around it; the edited
model's dot is filled, the base's is hollow.
"""

from collections.abc import Sequence
from html import escape

from weight_edit.errors import plain
from weight_edit.tables.table import Cell, Estimate, Table

_WIDTH, _HEIGHT, _EDGE = 150, 16, 6
_CELL = "text-align:left;padding:2px 10px 2px 0"
_EDITED = "#0072b2"

_WHOLE = 32
"""Characters of a cell that is not broken: a figure stands beside its interval, a number beside its unit."""


def as_html(title: str, tables: Sequence[Table]) -> str:
    """One piece of HTML.

    Args:
        title: a line above the tables.
    """
    return f"<div><p><strong>{_text(title)}</strong></p>{''.join(map(_table, tables))}</div>"


def _table(table: Table) -> str:
    plots = [_plot(row, table.scale) for row in table.rows]
    drawn = any(plots)
    columns = (*table.columns, _legend(table)) if drawn else table.columns
    head = "".join(f'<th scope="col" style="{_CELL}">{_text(name)}</th>' for name in columns) if any(columns) else ""
    body = "".join(
        f"<tr>{''.join(map(_cell, row))}{f'<td>{plot}</td>' if drawn else ''}</tr>"
        for row, plot in zip(table.rows, plots, strict=True)
    )
    caption = f'<caption style="text-align:left">{_text(table.title)}</caption>' if table.title else ""
    note = f"<p><small>{_text(table.note)}</small></p>" if table.note else ""
    return f"<table>{caption}{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>{note}"


def _cell(cell: Cell) -> str:
    text = "" if cell is None else str(cell)
    whole = ";white-space:nowrap" if len(text) <= _WHOLE else ""
    return f'<td style="{_CELL}{whole}">{_text(text)}</td>'


def _legend(table: Table) -> str:
    """What the plots show: the ends of the axis, and which dot is whose."""
    low, high = table.scale or (0, 0)
    axis = f"from {low:g} to {high:g}"
    drawn = max(sum(isinstance(cell, Estimate) and not cell.signed for cell in row) for row in table.rows)
    return axis if drawn < 2 else f"\u25cb base, \u25cf edited, {axis}"


def _plot(row: Sequence[Cell], scale: tuple[float, float] | None) -> str:
    """The figures of a row on one axis; empty where there is none to be drawn."""
    figures = [cell for cell in row if isinstance(cell, Estimate) and not cell.signed]
    if scale is None or not figures:
        return ""
    said = escape("; ".join(map(str, figures)), quote=True)
    middle = _HEIGHT / 2
    parts = [
        f'<svg role="img" aria-label="{said}" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        f'<line x1="{_EDGE}" x2="{_WIDTH - _EDGE}" y1="{middle}" y2="{middle}" stroke="currentColor" '
        'stroke-opacity="0.25"/>',
    ]
    for number, figure in enumerate(figures):
        last = number == len(figures) - 1
        colour = _EDITED if last else "currentColor"
        # Two that lie on one another are both seen.
        y = middle + (0 if len(figures) == 1 else 3 if last else -3)
        if figure.low is not None and figure.high is not None:
            ends = (_place(figure.low, scale), _place(figure.high, scale))
            parts.append(
                f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
            )
        fill = colour if last else "none"
        x = _place(figure.value, scale)
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="3.5" stroke="{colour}" fill="{fill}"/>')
    return "".join([*parts, "</svg>"])


def _place(value: float, scale: tuple[float, float]) -> float:
    """Where a value lies on the axis; what is beyond it lies at its end."""
    low, high = scale
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    return _EDGE + share * (_WIDTH - 2 * _EDGE)


def _text(text: str) -> str:
    return escape(plain(text), quote=True)
