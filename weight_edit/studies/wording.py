"""The wording of refusals: by how they begin."""

from collections import Counter
from collections.abc import Mapping, Sequence

from weight_edit.evaluation.judge import normalise


def opening(text: str, words: int) -> str:
    """The first words of a text, caseless, with plain quotes and no sign at the end."""
    return " ".join(normalise(text).split()[:words]).rstrip(".,;:!?")


def openings(texts: Sequence[str], words: int) -> Counter[str]:
    """How often each opening comes."""
    return Counter(opening(text, words) for text in texts)


def apart(first: Counter[str], second: Counter[str]) -> float | None:
    """Total variation between two distributions of openings: 0 the same, 1 nothing in common; None without any."""
    totals = first.total(), second.total()
    if not all(totals):
        return None
    both = {*first, *second}
    return sum(abs(first[each] / totals[0] - second[each] / totals[1]) for each in both) / 2


def share_of(texts: Sequence[str], own: Counter[str], words: int) -> float | None:
    """The share of texts that begin like some others; None where there are no texts or no others."""
    if not texts or not own:
        return None
    return sum(opening(text, words) in own for text in texts) / len(texts)


def others_share(texts: Sequence[str], own: Mapping[str, Counter[str]], name: str, words: int) -> float | None:
    """The mean share that begins like each of the other categories: what the share of its own must exceed."""
    shares = [share_of(texts, some, words) for other, some in own.items() if other != name]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None
