"""Small pieces of HTML, in which every text is escaped: names, prompts, answers and cards may say anything."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Literal, TypeGuard

from weight_edit.utils.progress import duration

Tone = Literal["plain", "good", "bad", "note"]

_LARGEST = 1e300


def text(value: object) -> str:
    """A text as HTML, without control characters, and without what the page's templates could take for theirs."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in str(value))
    return escape(shown, quote=True).replace("$", "&#36;").replace("{", "&#123;").replace("`", "&#96;")


def code(value: str) -> str:
    """A text as HTML, with what stands between backticks as code."""
    parts = [text(part) for part in value.split("`")]
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def paragraph(value: object, tone: Tone = "plain") -> str:
    """A paragraph in one of the page's tones; nothing for an empty text."""
    role = ' role="alert"' if tone == "bad" else ""
    return f'<p class="we-{tone}"{role}>{text(value)}</p>' if str(value) else ""


def pre(lines: Iterable[object], label: str) -> str:
    """Lines as they stand, which scroll by themselves."""
    joined = text("\n".join(str(line) for line in lines))
    return f'<pre class="we-lines" tabindex="0" role="region" aria-label="{text(label)}">{joined}</pre>'


def bar(share: float | None, label: str) -> str:
    """A progress bar; without a share it says only that something is going on."""
    value = "" if share is None else f' value="{share:.4f}"'
    return f'<progress class="we-bar" max="1"{value} aria-label="{text(label)}"></progress>'


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], caption: str, *, marked: int | None = None) -> str:
    """A table; a narrow window scrolls it sideways.

    Args:
        marked: the row that is chosen.
    """
    head = "".join(f'<th scope="col">{text(each)}</th>' for each in heads)
    body = []
    for number, row in enumerate(rows):
        mark = ' class="we-marked"' if number == marked else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>")
    return (
        f'<div class="we-scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def facts(entries: Mapping[str, object]) -> str:
    """Names with their values, as a list."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in entries.items())
    return f'<dl class="we-facts">{rows}</dl>' if rows else ""


def glossary(entries: Mapping[str, str]) -> str:
    """Words with what they mean, one below the other; what stands between backticks is code."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{code(said)}</dd></div>" for name, said in entries.items())
    return f'<dl class="we-words">{rows}</dl>' if rows else ""


def rate(value: Any) -> str:
    """A rate with its interval in words: "0.03 (0.01 to 0.07), 3 of 96"."""
    if not isinstance(value, dict) or not _is_figure(value.get("value")):
        return "not measured"
    shown = f"{value['value']:.2f}"
    if _is_figure(value.get("low")) and _is_figure(value.get("high")):
        shown += f" ({value['low']:.2f} to {value['high']:.2f})"
    if isinstance(value.get("total"), int) and isinstance(value.get("count"), int):
        shown += f", {value['count']} of {value['total']}"
    return shown


def number(value: object) -> str:
    """A figure with three digits; a dash where there is none."""
    return f"{value:.3g}" if _is_figure(value) else "–"


def size(count: object) -> str:
    """Bytes in words."""
    if not _is_figure(count):
        return "–"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def seconds(value: object) -> str:
    """Seconds in words, of a figure or of one that lies between two."""
    if isinstance(value, dict):
        low, high = value.get("low"), value.get("high")
        if _is_figure(low) and _is_figure(high):
            return duration(high) if high <= 1.2 * low else f"{duration(low)} to {duration(high)}"
        return "–"
    return duration(value) if _is_figure(value) else "–"


def _is_figure(value: object) -> TypeGuard[int | float]:
    """Whether a value of a document of others can be shown as a figure; one that is too large or none cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
