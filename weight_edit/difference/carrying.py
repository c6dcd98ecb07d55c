"""Whether the edits of single tensors are an edit of the model."""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

from weight_edit.difference.evidence import Evidence
from weight_edit.difference.operators.common import ALIKE
from weight_edit.difference.sharing import shared_directions
from weight_edit.difference.strengths import alike
from weight_edit.difference.tensor_verdict import TensorVerdict

_NUMBER = re.compile(r"\d+")
_LEAST = 3
"""The fewest tensors that must share directions where the anatomy is not known: of two, one may be chance."""


def is_edited(found: TensorVerdict) -> bool:
    """Whether a tensor by itself looks edited."""
    return found.edit is not None or (found.component is not None and found.innocent in (None, "quantisation"))


def without_compression(given: Evidence) -> Evidence:
    """The evidence, where tensors that each lost what they had least of, along directions of their own, were cut so."""
    found = [each for each in given.matrices if is_edited(each)]
    faint = {each.name for each in found if each.faint}
    # One direction of all tensors is the least of each by no accident; of those of their own a few are by chance.
    if len(faint) <= len(found) / 2 or _together(given, found):
        return given
    others = [each for each in found if each.name not in faint]
    # The bottom of a spectrum is not always found: what shares nothing with others is no edit beside a compression.
    unlike = set() if _together(given, others) else {each.name for each in others}
    return replace(given, matrices=[_compressed(each, faint, unlike) for each in given.matrices])


def _together(given: Evidence, found: Sequence[TensorVerdict]) -> bool:
    """Whether there are several tensors, and they share directions."""
    return len(found) > 1 and shared_directions(found, given.width or 0).alike >= ALIKE


def _compressed(found: TensorVerdict, faint: Collection[str], unlike: Collection[str]) -> TensorVerdict:
    """A tensor's verdict in a model that was compressed."""
    if found.name in faint:
        return _cut(found)
    return replace(found, edit=None, component=None, follows=None) if found.name in unlike else found


def _cut(found: TensorVerdict) -> TensorVerdict:
    how = "what each had least of went, along directions of its own"
    return replace(found, innocent="compression", innocent_how=how, edit=None, component=None)


def edited_tensors(given: Evidence) -> list[TensorVerdict]:
    """The tensors that an edit of the model edited; none where what single tensors say does not carry."""
    found = [each for each in given.matrices if is_edited(each)]
    exact = [each for each in found if each.edit is not None]
    if not exact and not _carry(given, found):
        return []
    return found + _following(given, found)


def _carry(given: Evidence, found: Sequence[TensorVerdict]) -> bool:
    """Whether components beside something else were taken off most of what could have them."""
    if not given.known:
        among = _by_kind(given.matrices, found)
        return len(among) >= _LEAST and _together(given, among)
    able = [each for each in given.matrices if each.part is not None and each.part.writes]
    among = [each for each in found if each.part is not None and each.part.writes]
    able, among = (able, among) if among else (list(given.matrices), list(found))
    return len(among) >= max(2, len(able) / 2)


def _by_kind(matrices: Sequence[TensorVerdict], found: Sequence[TensorVerdict]) -> list[TensorVerdict]:
    """Those found among tensors of one name but for numbers, of which at least half are found."""
    kinds: dict[str, list[TensorVerdict]] = defaultdict(list)
    for each in matrices:
        kinds[_NUMBER.sub("*", each.name)].append(each)
    names = {each.name for each in found}
    among: list[TensorVerdict] = []
    for members in kinds.values():
        edited = [each for each in members if each.name in names]
        if len(edited) >= len(members) / 2:
            among += edited
    return among


def _following(given: Evidence, found: Sequence[TensorVerdict]) -> list[TensorVerdict]:
    """Tensors of too few vectors to be told by themselves that lost what the others lost."""
    few = [each for each in given.matrices if each.follows is not None and not is_edited(each)]
    if not few or not len(shared_directions(found, given.width or 0).rows):
        return []
    fits = [each.edit or each.component for each in found]
    return [
        each
        for each in few
        if any(fit is not None and each.follows is not None and alike(fit, each.follows) for fit in fits)
    ]
