"""Outputs of the category study: the heat map of cosines, and the wording of refusals."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import Tensor

from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.evaluation.plain_text import normalise
from weight_edit.studies.tables import figure, write_table


def draw_cosines(folder: Path, names: Sequence[str], matrix: Tensor) -> None:
    """Draw `cosines.png`: a heat map with the numbers in it."""
    size = max(4.0, 0.6 * len(names))
    with figure(folder, "cosines", size=(size + 1.5, size)) as axes:
        picture = axes.imshow(matrix.numpy(), vmin=-1, vmax=1, cmap="RdBu_r")
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        for row in range(len(names)):
            for column in range(len(names)):
                value = float(matrix[row, column])
                colour = "white" if abs(value) > 0.6 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)
        axes.figure.colorbar(picture, ax=axes, label="cosine")


def opening(text: str, words: int) -> str:
    """The first words of a text, casefolded, with plain quotes and no final punctuation."""
    return " ".join(normalise(text).split()[:words]).rstrip(".,;:!?")


def openings(texts: Sequence[str], words: int) -> Counter[str]:
    """The count of each opening."""
    return Counter(opening(text, words) for text in texts)


def apart(first: Counter[str], second: Counter[str]) -> float | None:
    """The total variation distance of two distributions of openings; None if one is empty."""
    totals = first.total(), second.total()
    if not all(totals):
        return None
    both = {*first, *second}
    return sum(abs(first[each] / totals[0] - second[each] / totals[1]) for each in both) / 2


def share_of(texts: Sequence[str], own: Counter[str], words: int) -> float | None:
    """The share of texts whose opening is among given ones; None if either is empty."""
    if not texts or not own:
        return None
    return sum(opening(text, words) in own for text in texts) / len(texts)


def others_share(texts: Sequence[str], own: Mapping[str, Counter[str]], name: str, words: int) -> float | None:
    """The mean of `share_of` over the other categories' openings: the level to exceed."""
    shares = [share_of(texts, some, words) for other, some in own.items() if other != name]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def wording_table(
    folder: Path,
    induced: Mapping[str, Sequence[str]],
    turned: Mapping[str, Sequence[str]],
    own: Mapping[str, Sequence[str]],
    words: int,
) -> list[dict[str, Any]]:
    """Write `wording.csv` and `.json`, a row per direction, and `openings.json` with counts.

    Args:
        induced: by direction, the refusals of requests that the unedited model answers.
        turned: by direction, refusals under it of requests of other categories.
        own: by category, the unedited model's refusals of its requests.
        words: how many of a refusal's first words are its opening.

    Returns:
        The rows: direction; induced, how many; most_common, their opening, and its share; distinct, how many openings;
        own and others, the share that begins like the direction's own category's refusals, and like another one's
        (mean over the others); turned, the share of other categories' refusals that begin like the direction's own.
        None where there is nothing to take a share of.
    """
    known = {name: openings(texts, words) for name, texts in own.items()}
    rows: list[dict[str, Any]] = []
    counts = {}
    for name, texts in induced.items():
        common = openings(texts, words)
        counts[name] = dict(common.most_common())
        first, count = common.most_common(1)[0] if texts else (None, 0)
        mine = known.get(name, Counter())
        rows.append(
            {
                "direction": name,
                "induced": len(texts),
                "most_common": first,
                "share": count / len(texts) if texts else None,
                "distinct": len(common),
                "own": share_of(texts, mine, words),
                "others": others_share(texts, known, name, words) if mine else None,
                "turned": share_of(turned.get(name, ()), mine, words),
            }
        )
    write_table(folder, "wording", rows)
    own_counts = {name: dict(common.most_common()) for name, common in known.items()}
    text = json.dumps({"induced": counts, "own": own_counts}, indent=2, ensure_ascii=False)
    write_whole(folder / "openings.json", text + "\n")
    return rows


def wording_apart(induced: Mapping[str, Sequence[str]], words: int) -> dict[str, float | None]:
    """The mean total variation between the openings that pairs of directions induce.

    `within` is the same between the two halves (every other one) of what one direction induces: what chance alone does.
    """
    counted = [openings(texts, words) for texts in induced.values()]
    between = [apart(one, other) for one, other in combinations(counted, 2)]
    halves = [apart(openings(texts[::2], words), openings(texts[1::2], words)) for texts in induced.values()]
    return {"between": _mean(between), "within": _mean(halves)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
