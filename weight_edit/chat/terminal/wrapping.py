"""Texts wrapped to columns of cells: wide characters count twice, combining ones stay with what they combine with."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len

_JOINER = "\N{ZERO WIDTH JOINER}"


@dataclass(frozen=True)
class Row:
    """A row of a wrapped text.

    Attributes:
        start, end: of its characters within the text; white space at a break belongs to no row.
    """

    start: int
    end: int


def clusters(text: str, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """Grapheme clusters of a text: begin and end within it, and the cells that each takes at most.

    A character without a width belongs to the one before it, and so does what a joiner joins.
    """
    begin = start
    while begin < len(text):
        end = begin + 1
        while end < len(text) and text[begin] != "\n" and _joins(text, end):
            end += 1
        yield begin, end, cell_len(text[begin:end])
        begin = end


def _joins(text: str, index: int) -> bool:
    """Whether a character belongs to what is before it."""
    return text[index] not in " \n" and (text[index - 1] == _JOINER or not cell_len(text[index]))


def wrapped(text: str, width: int, start: int = 0) -> list[Row]:
    """The rows of a text from `start` on, none wider than `width` cells; there is always one, which may be empty.

    Rows are broken at spaces, and within a word that is wider than a row. What follows can change the last row alone.
    """
    rows: list[Row] = []
    begin, cells = start, 0
    # Where the row can be broken: the end of its last word, and the begin of the next.
    word_end, next_word, after_break, spaces = None, start, 0, False
    for first, end, size in clusters(text, start):
        if text[first] == "\n":
            rows.append(Row(begin, first))
            begin, cells, word_end = end, 0, None
            continue
        space = text[first:end] == " "
        if cells + size > width and not space and cells:
            if word_end is not None:
                rows.append(Row(begin, word_end))
                begin, cells = next_word, cells - after_break
            if cells + size > width:
                rows.append(Row(begin, first))
                begin, cells = first, 0
            word_end = None
        cells += size
        if space and first > begin:
            if not spaces or word_end is None:
                word_end = first
            next_word, after_break = end, cells
        spaces = space
    rows.append(Row(begin, len(text)))
    return rows
