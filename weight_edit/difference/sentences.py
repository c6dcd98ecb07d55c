"""A verdict's sentences: what the figures are that it rests on."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from weight_edit.difference.beside import listed
from weight_edit.difference.evidence import Evidence
from weight_edit.difference.operator_names import (
    FINE_TUNE,
    FORMULAS,
    INNOCENT,
    LOW_RANK,
    QUANTISATION,
    UNDECIDED,
    UNDECIDED_REST,
    VOCABULARY,
)
from weight_edit.difference.sharing import Shared, shared_directions
from weight_edit.difference.strengths import all_alike
from weight_edit.difference.tensor_verdict import TensorVerdict
from weight_edit.difference.verdict_result import EditedWriter

Said = tuple[list[str], list[str]]
"""Names of operators, and sentences."""


def about_edit(edited: Sequence[TensorVerdict], writers: Sequence[EditedWriter], shared: Shared) -> list[str]:
    """Sentences on the edit: how well it fits, whether directions are shared, how strong it is."""
    exact = [writer for each, writer in zip(edited, writers, strict=True) if each.edit or each.follows]
    said = []
    for operator, count in Counter(writer.operator for writer in exact).most_common():
        group = [writer for writer in exact if writer.operator == operator]
        explained = float(np.median([writer.explained for writer in group]))
        rounding = float(np.median([writer.rounding for writer in group]))
        said.append(
            f"In {count} of {len(edited)} edited tensors the difference is {FORMULAS.get(operator, operator)} up to "
            f"rounding: {share(explained)} explained of vectors that it was not fitted to, and what is left is "
            f"{rounding:.2g} times what rounding each number once makes."
        )
    others = [writer for each, writer in zip(edited, writers, strict=True) if not (each.edit or each.follows)]
    if others:
        correlation = float(np.median([writer.correlation or 0.0 for writer in others]))
        explained = float(np.median([writer.explained for writer in others]))
        said.append(
            f"In {len(others)} tensors what the difference has along its directions is what A had there, taken away "
            f"(correlation {correlation:.3f}), which explains {share(explained)} of it: more than chance, not all."
        )
    if len(writers) > 1:
        if len(shared.rows):
            how = ", through the norms behind the writers" if shared.through_norms else ""
            said.append(
                f"The tensors share {len(shared.rows)} direction{'s' * (len(shared.rows) > 1)}{how}: mean squared "
                f"cosine {shared.alike:.4f}."
            )
        elif any(len(writer.rows) for writer in writers):
            said.append(f"Each tensor has directions of its own: mean squared cosine {shared.alike:.3f}.")
    some = [each.some for each in edited if each.some]
    if some:
        said.append(f"In {len(some)} tensors only some vectors were edited: {some[0]}.")
    return said + _about_strength(edited, writers)


def _about_strength(edited: Sequence[TensorVerdict], writers: Sequence[EditedWriter]) -> list[str]:
    strengths = [writer.strength for writer in writers if writer.strength is not None]
    if not strengths:
        return []
    lefts = [writer.left for writer in writers if writer.left is not None]
    low, high = min(strengths), max(strengths)
    span = f"{np.median(strengths):.3g}" if all_alike([each.fit for each in edited]) else f"{low:.3g} to {high:.3g}"
    left = f"; of the components along the directions {share(float(np.median(lefts)))} is left" if lefts else ""
    return [f"Strength {span}{left}."]


def about_rest(edited: Sequence[TensorVerdict], rest: Sequence[TensorVerdict]) -> Said:
    """What there is beside an edit."""
    names, said = [], []
    quantised = sum(each.edit is None and each.rest == "quantisation" for each in edited)
    quantised += sum(each.innocent == "quantisation" for each in rest)
    if quantised:
        names.append(QUANTISATION)
        how = Counter(_how(each) for each in [*edited, *rest] if _how(each)).most_common(1)
        said.append(
            f"What is left in {quantised} tensors is what rounding to a grid makes: {how[0][0] if how else ''}."
        )
    for kind, count in Counter(each.innocent for each in rest).most_common():
        if kind is None or kind == "quantisation":
            continue
        names.append(INNOCENT[kind])
        said.append(f"{count} tensors are not edited: the difference is {INNOCENT[kind]}{_ways(rest, kind)}.")
    more = [each for each in rest if each.innocent is None and not each.weak]
    beside = sum(each.edit is None and each.follows is None and each.rest == "more" for each in edited)
    if more or beside:
        ranks = [each.rank for each in more if each.rank]
        name = LOW_RANK if more and len(ranks) == len(more) else FINE_TUNE
        # Where nothing differs but what was edited, a fine-tune is not what comes to mind: it is not guessed.
        names.append(name if rest else UNDECIDED_REST)
        said.append(f"{len(more) + beside} tensors have changes that neither the edit nor rounding explains.")
    weak = sum(each.innocent is None and each.weak for each in rest)
    if weak:
        said.append(f"{weak} tensors differ by no more than a few roundings.")
    return names, said


def _how(found: TensorVerdict) -> str:
    if found.edit is None and found.component is not None and found.rest == "quantisation":
        return found.rest_how
    return found.innocent_how if found.innocent == "quantisation" else ""


def _ways(matrices: Sequence[TensorVerdict], kind: str) -> str:
    ways = Counter(each.innocent_how for each in matrices if each.innocent == kind and each.innocent_how)
    return f" ({ways.most_common(1)[0][0]})" if ways else ""


def about_matrices(given: Evidence, components: Sequence[TensorVerdict]) -> Said:
    """What matrices were made with in a model that was not edited as a whole.

    Args:
        components: tensors that look edited by themselves, too few to carry.
    """
    matrices = given.matrices
    rest = [each for each in matrices if each.innocent is None]
    names, said = [], []
    for kind, count in Counter(each.innocent for each in matrices if each.innocent is not None).most_common():
        names.append(INNOCENT[str(kind)])
        said.append(
            f"In {count} of {len(matrices)} differing tensors the difference is {INNOCENT[str(kind)]}"
            f"{_ways(matrices, str(kind))}."
        )
    if components:
        together = len(components) > 1 and shared_directions(components, given.width or 0).alike > _TOGETHER
        names += [UNDECIDED] if together else []
        along = "a direction that they share" if together else "directions of their own"
        said.append(
            f"{len(components)} tensors lost what they had along {along}, too few of {len(matrices)} to call it an "
            "edit of the model."
        )
    if rest and UNDECIDED not in names:
        ranks = [each.rank for each in rest if each.rank is not None]
        low = len(ranks) > _NEARLY_ALL * len(rest)
        names.append(LOW_RANK if low else FINE_TUNE)
        said.append(
            f"In {len(ranks)} of {len(matrices)} differing tensors the difference has rank {_span(ranks)} above "
            "rounding, and is not made of what the tensor had along these directions."
            if low
            else f"In {len(rest)} of {len(matrices)} differing tensors the difference is spread over many directions, "
            "and no operator on directions explains it."
        )
    return names, said


_TOGETHER = 0.9
"""The mean squared cosine above which lost directions are said to be shared; of two unrelated tensors it is a half."""

_NEARLY_ALL = 0.9
"""The share of low-rank differences above which all are called so: of a merged adapter, rounding hides some."""


def about_vocabulary(given: Evidence) -> Said:
    """Embeddings of another number of rows."""
    if not given.vocabulary:
        return [], []
    changed = {each.name for each in given.matrices} & set(given.vocabulary)
    common = "some of the rows that both have differ" if changed else "the rows that both have are the same"
    return [VOCABULARY], [f"{listed(given.vocabulary)} have another number of rows; {common}."]


def _span(numbers: Sequence[int]) -> str:
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def share(value: float) -> str:
    """In percent, or next to one as a number."""
    return f"{value:.2%}" if value < 0.9995 else f"{value:.4f}"
