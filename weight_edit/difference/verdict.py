"""The verdict on a difference: what a model was made with from another one.

It is what `weight-edit diff A B --verdict` runs. Each differing tensor is asked which operators predict it
(`tensor_verdict.py`); here the answers of all are weighed. What the figures do not carry is undecided, and what no
operator accounts for is named and takes the certainty away.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from weight_edit.difference.beside import Beside, added_vector, beside, folded_gains, listed
from weight_edit.difference.carrying import edited_tensors, is_edited, without_compression
from weight_edit.difference.evidence import Evidence
from weight_edit.difference.operator_names import (
    ABLATION,
    ADDITION,
    AT_A_LAYER,
    CENTRING,
    CONSTANT,
    NO_CHANGE,
    REFLECTION,
    ROUNDING,
    UNDECIDED,
    WITH_CONSTANT,
)
from weight_edit.difference.operators.common import ALIKE
from weight_edit.difference.repeated import addition_at, recipe_of
from weight_edit.difference.sentences import about_edit, about_matrices, about_rest, about_vocabulary
from weight_edit.difference.sharing import Shared, shared_directions
from weight_edit.difference.strengths import all_alike, allowed
from weight_edit.difference.tensor_verdict import TensorVerdict
from weight_edit.difference.verdict_result import Confidence, EditedWriter, Verdict


def verdict(given: Evidence) -> Verdict:
    """What a model was made with."""
    given = without_compression(given)
    edited = edited_tensors(given)
    if not edited:
        return _other_verdict(given)
    shared = shared_directions(edited, given.width or 0)
    chosen = {each.name for each in edited}
    rest = [each for each in given.matrices if each.name not in chosen]
    if _centres(edited, shared):
        return _centring_verdict(given, edited, rest, shared)
    return _edit_verdict(given, edited, rest, shared)


def _edit_verdict(
    given: Evidence, edited: Sequence[TensorVerdict], rest: Sequence[TensorVerdict], shared: Shared
) -> Verdict:
    writers = tuple(_writer(each, shared, number) for number, each in enumerate(edited))
    aside = beside(given, edited, shared.rows)
    names, sentences = [_kind(given, edited, writers)], about_edit(edited, writers, shared)
    within = any(writer.operator in (WITH_CONSTANT, ADDITION) for writer in writers) and names[0] != ADDITION
    if aside.constants or within:
        names += [CONSTANT] if names[0] not in (ADDITION, WITH_CONSTANT) else []
        where = aside.constants or [w.name for w in writers if w.operator in (WITH_CONSTANT, ADDITION)]
        sentences.append(f"A constant is added beside: {listed(where)}.")
    for others, more in (about_rest(edited, rest), about_vocabulary(given)):
        names += others
        sentences += more
    told = _all_exact(edited, rest) and not aside.rest and given.known
    return Verdict(
        made_with=tuple(dict.fromkeys(names)),
        edited=True,
        confidence="certain" if told else "likely",
        evidence=(*sentences, *_about_beside(aside)),
        writers=writers,
        not_edited=_not_edited(given, edited),
        rows=shared.rows,
        through_norms=shared.through_norms,
        constants=aside.constants,
        recipe=None if aside.constants or within else recipe_of(given, names[0], edited, writers, shared),
        notes=_notes(given),
    )


def _centres(edited: Sequence[TensorVerdict], shared: Shared) -> bool:
    """Whether all that was taken away is the mean over the stream's coordinates."""
    if any(each.fit.operator != ABLATION for each in edited) or len(shared.rows) != 1:
        return False
    return float(shared.rows.sum() ** 2) / shared.rows.shape[1] >= ALIKE


def _centring_verdict(
    given: Evidence, edited: Sequence[TensorVerdict], rest: Sequence[TensorVerdict], shared: Shared
) -> Verdict:
    aside = beside(given, edited, shared.rows)
    names, sentences = about_rest(edited, rest)
    more, vocabulary = about_vocabulary(given)
    mean_free = given.parts.reads_mean_free
    leaves = "which leaves the model as it was, since the norms that read the stream take it off, too"
    unknown = (
        "which leaves a model as it was where the norms that read the stream take it off, too; that is not known here"
    )
    told = mean_free and _all_exact(edited, rest) and not aside.rest and not aside.constants
    return Verdict(
        made_with=tuple(dict.fromkeys([CENTRING, *names, *more])),
        edited=False,
        confidence="certain" if told else "likely",
        evidence=(
            f"{len(edited)} tensors lost the mean of what they write, {leaves if mean_free else unknown}.",
            *sentences,
            *vocabulary,
            *_about_beside(aside),
        ),
        rows=np.zeros((0, given.width or 0)),
        notes=_notes(given),
    )


def _all_exact(edited: Sequence[TensorVerdict], rest: Sequence[TensorVerdict]) -> bool:
    kept = all(each.edit or each.follows or each.rest in ("rounding", "quantisation") for each in edited)
    told = all(each.innocent not in (None, "compression") or each.weak for each in rest)
    return kept and told and not any(each.some for each in edited)


def _writer(found: TensorVerdict, shared: Shared, number: int) -> EditedWriter:
    fit = found.fit
    part = found.part
    return EditedWriter(
        name=found.name,
        role="" if part is None else part.role,
        layer=None if part is None else part.layer,
        operator=fit.operator,
        strength=fit.strength,
        explained=fit.explained,
        rounding=fit.excess,
        correlation=fit.correlation,
        left=fit.left,
        cosine=shared.cosine(number),
        rows=np.asarray(fit.rows, np.float64),
    )


def _kind(given: Evidence, edited: Sequence[TensorVerdict], writers: Sequence[EditedWriter]) -> str:
    """The edit's name: that of most tensors, and how strong."""
    operator = Counter(writer.operator for writer in writers).most_common(1)[0][0]
    if operator != "ablation":
        return operator
    near = allowed([each.fit for each in edited])
    strengths = [writer.strength for writer in writers if writer.strength is not None]
    if folded_gains(given, edited) and abs(np.median(strengths) - 2) <= near:
        return AT_A_LAYER
    sides = [each for each in edited if each.part is not None and each.part.side != each.side]
    where = " on the side that is read" if len(sides) > len(edited) / 2 else ""
    readers = [each for each in edited if each.part is not None and not each.part.writes]
    if len(readers) > len(edited) / 2:
        where = " of what is read"
    if not all_alike([each.fit for each in edited]):
        return f"{ABLATION} with strengths by layer{where}"
    middle = float(np.median(strengths))
    if abs(middle - 1) <= near:
        return f"{ABLATION}{where}"
    if abs(middle - 2) <= near:
        return f"{REFLECTION}{where}"
    return f"partial {ABLATION}{where}" if middle < 1 else f"{ABLATION} beyond its full strength{where}"


def _about_beside(aside: Beside) -> list[str]:
    said = [f"The same explains {listed(aside.following)}."] if aside.following else []
    return said + list(aside.rest)


def _other_verdict(given: Evidence) -> Verdict:
    components = [each for each in given.matrices if is_edited(each)]
    aside = beside(given, (), np.zeros((0, given.width or 0)))
    names, said = about_matrices(given, components)
    more, vocabulary = about_vocabulary(given)
    names, said = names + more, said + vocabulary
    if given.bytes_only and not given.matrices:
        names.append(ROUNDING)
        said.append(f"{len(given.bytes_only)} tensors are stored otherwise; no number differs.")
    added = len(aside.constants) == 1 and not given.matrices
    if added:
        names.insert(0, ADDITION)
        length = float(np.linalg.norm(added_vector(given, aside.constants[0])))
        said.insert(
            0, f"Of matrices nothing differs; {aside.constants[0]} adds a vector of length {length:.3g} to the stream."
        )
    elif aside.constants:
        names.append(UNDECIDED)
        said.append(
            f"{len(aside.constants)} writers have new biases, {listed(aside.constants)}: additions, or trained ones."
        )
    said += _about_beside(aside)
    if not names:
        names, nothing = ([UNDECIDED], []) if aside.rest else ([NO_CHANGE], ["No number of any tensor differs."])
        said = nothing + said
    confidence: Confidence = "certain" if _accounted(given, aside) and not components else "likely"
    return Verdict(
        made_with=tuple(dict.fromkeys(names)),
        edited=added,
        confidence="undecided" if UNDECIDED in names else confidence,
        evidence=tuple(said),
        rows=np.zeros((0, given.width or 0)),
        constants=aside.constants if added else (),
        recipe=addition_at(given, aside.constants) if added and not aside.rest else None,
        notes=_notes(given),
    )


def _accounted(given: Evidence, aside: Beside) -> bool:
    """Whether changes of single numbers or vectors, each by its own kind, are all that differs."""
    # That a matrix was cut to its leading singular values is told by what it lost, which an edit may take, too.
    return all(each.innocent not in (None, "compression") for each in given.matrices) and not aside.rest


def _not_edited(given: Evidence, edited: Sequence[TensorVerdict]) -> tuple[str, ...]:
    names = {each.name for each in edited}
    return tuple(sorted(name for name in given.parts.writers if name not in names))


def _notes(given: Evidence) -> tuple[str, ...]:
    notes = list(given.notes)
    if given.parts.problem:
        notes.append(f"which tensors write to the stream is not known: {given.parts.problem}")
    if given.copied:
        notes.append(f"stored by itself in one of the two, as a copy of the embedding: {listed(given.copied)}")
    return tuple(notes)
