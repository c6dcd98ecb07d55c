"""The verdict on a difference: what a model was made with from another one.

It is what `weight-edit diff A B --verdict` runs. Each differing tensor is asked which operators predict it
(`tensor_verdict.py`); here the answers of all are weighed. What the figures do not carry is undecided.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weight_edit.difference.collecting import VectorChange
from weight_edit.difference.found_recipe import Place, addition, along_directions, at_a_layer, erasure
from weight_edit.difference.model_parts import ModelParts
from weight_edit.difference.pairs import Values
from weight_edit.difference.sharing import Shared, behind_norm, shared_directions
from weight_edit.difference.tensor_verdict import TensorVerdict
from weight_edit.difference.verdict_result import Confidence, EditedWriter, Verdict

NO_CHANGE = "no change"
UNDECIDED = "undecided"
UNDECIDED_REST = "something undecided at the same tensors"
ABLATION = "ablation"
REFLECTION = "reflection"
AT_A_LAYER = "reflection at a layer"
ADDITION = "addition"
CONSTANT = "constant"
LOW_RANK = "low-rank update (as of a merged LoRA)"
FINE_TUNE = "fine-tune or merge"
QUANTISATION = "quantisation"
ROUNDING = "rounding to another format"
PRUNING = "pruning"
SCALING = "scaling"
VOCABULARY = "another vocabulary"

_INNOCENT = {"rounding": ROUNDING, "quantisation": QUANTISATION, "pruning": PRUNING, "scaling": SCALING}
_NEAR = 0.03
"""How far from 1 or 2 a strength may be and still be called whole, or a reflection."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """All that a verdict is made of.

    Attributes:
        matrices: the verdicts on differing matrices.
        vectors: the differing vectors.
        new_vectors: vectors that only the second model has.
        undecoded: differing tensors of which no numbers are known.
        resized: tensors of another shape whose common rows are the same or of which that is not known.
        bytes_only: tensors whose numbers are the same in other bytes, or in another format.
        parts: of the first model.
        width: of the stream.
        eraser: L and R of one oblique eraser, (d, k) each, where the differences follow one.
    """

    matrices: Sequence[TensorVerdict]
    vectors: Mapping[str, VectorChange]
    new_vectors: Mapping[str, Values]
    undecoded: Sequence[str]
    resized: Sequence[str]
    bytes_only: Sequence[str]
    parts: ModelParts
    width: int | None
    eraser: tuple[Values, Values] | None = None


def verdict(given: Evidence) -> Verdict:
    """What a model was made with."""
    edited = [each for each in given.matrices if _is_edit(each)]
    rest = [each for each in given.matrices if not _is_edit(each)]
    if edited and _carries(edited, given.matrices):
        return _edit_verdict(given, edited, rest)
    return _other_verdict(given, edited)


def _is_edit(found: TensorVerdict) -> bool:
    return found.edit is not None or (found.component is not None and found.innocent in (None, "quantisation"))


def _carries(edited: Sequence[TensorVerdict], matrices: Sequence[TensorVerdict]) -> bool:
    """Whether edits of single tensors are one of the model: exact somewhere, or found in most of what can have them."""
    exact = [each for each in edited if each.edit is not None and each.edit.operator != "addition"]
    if len(exact) >= max(1, len(matrices) / 2) or any(e.edit is not None and len(matrices) == 1 for e in edited):
        return True
    able = [each for each in matrices if _writes(each)] or matrices
    among = [each for each in edited if _writes(each)] or edited
    return len(among) >= max(2, len(able) / 2)


def _writes(found: TensorVerdict) -> bool:
    return found.part is None or found.part.role not in ("reader", "unembedding")


def _edit_verdict(given: Evidence, edited: Sequence[TensorVerdict], rest: Sequence[TensorVerdict]) -> Verdict:
    shared = shared_directions(edited, given.width or 0)
    writers = tuple(_writer(each, shared, number) for number, each in enumerate(edited))
    constants = _constants(given)
    names, sentences = [_kind(given, edited, writers)], _about_edit(edited, writers, shared)
    if constants and names[0] != ADDITION:
        names.append(CONSTANT)
        sentences.append(f"A constant is added beside: {_listed(constants)}.")
    others, more = _about_rest(given, edited, rest)
    names += others
    confidence: Confidence = "certain" if _all_exact(edited, rest) else "likely"
    return Verdict(
        made_with=tuple(names),
        edited=True,
        confidence=confidence,
        evidence=tuple(sentences + more),
        writers=writers,
        not_edited=_not_edited(given, edited),
        rows=shared.rows,
        through_norms=shared.through_norms,
        constants=tuple(constants),
        recipe=None if constants else _recipe(given, names[0], edited, writers, shared),
        notes=_notes(given),
    )


def _recipe(
    given: Evidence,
    name: str,
    edited: Sequence[TensorVerdict],
    writers: Sequence[EditedWriter],
    shared: Shared,
) -> dict[str, Any] | None:
    """The edit as a recipe's sections; None where none of ours is that edit."""
    if any(each.part is None or each.part.side != each.side for each in edited):
        return None
    if name == AT_A_LAYER:
        turned = [each.part.layer for each in edited if each.part is not None and each.part.layer is not None]
        return at_a_layer(shared.rows, min(turned)) if len(shared.rows) and turned else None
    if given.eraser is not None:
        return erasure(*given.eraser)
    if name == "oblique erasure":
        return None
    operators = {writer.operator for writer in writers}
    if operators == {"addition"}:
        fit = edited[0].edit
        vector = None if fit is None else fit.facts.get("constant")
        return None if vector is None else addition(vector, 0)
    if len(operators) > 1 or any(not _writes(each) for each in edited):
        return None
    places = []
    for writer, each in zip(writers, edited, strict=True):
        if writer.strength is None:
            return None
        rows = behind_norm(each, writer.rows)
        places.append(Place(writer.role, writer.layer, writer.strength, rows))
    # What did not allow for the norms behind writers is another direction of the stream for each of them.
    gained = any(each.part is not None and each.part.gains is not None for each in edited)
    common = shared.rows if shared.through_norms or not gained else shared.rows[:0]
    return along_directions(writers[0].operator, places, common, given.parts.layers)


def _all_exact(edited: Sequence[TensorVerdict], rest: Sequence[TensorVerdict]) -> bool:
    kept = all(each.edit is not None or each.rest in ("rounding", "quantisation") for each in edited)
    return kept and all(each.innocent is not None or each.weak for each in rest)


def _writer(found: TensorVerdict, shared: Shared, number: int) -> EditedWriter:
    fit = found.edit or found.component
    assert fit is not None
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
        rows=np.asarray(fit.rows),
    )


def _kind(given: Evidence, edited: Sequence[TensorVerdict], writers: Sequence[EditedWriter]) -> str:
    """The edit's name: that of most tensors, and how strong."""
    operator = Counter(writer.operator for writer in writers).most_common(1)[0][0]
    if operator != "ablation":
        return operator
    strengths = [writer.strength for writer in writers if writer.strength is not None]
    if any(vector.constant for vector in given.vectors.values()) and abs(np.median(strengths) - 2) < _NEAR:
        return AT_A_LAYER
    sides = [each for each in edited if each.part is not None and each.part.side != each.side]
    where = " on the side that is read" if len(sides) > len(edited) / 2 else ""
    readers = [each for each in edited if not _writes(each)]
    if len(readers) > len(edited) / 2:
        where = " of what is read"
    if np.ptp(strengths) > 2 * _NEAR:
        return f"{ABLATION} with strengths by layer{where}"
    middle = float(np.median(strengths))
    if abs(middle - 1) <= _NEAR:
        return f"{ABLATION}{where}"
    if abs(middle - 2) <= _NEAR:
        return f"{REFLECTION}{where}"
    return f"partial {ABLATION}{where}" if middle < 1 else f"{ABLATION} beyond its full strength{where}"


def _about_edit(edited: Sequence[TensorVerdict], writers: Sequence[EditedWriter], shared: Shared) -> list[str]:
    exact = [writer for each, writer in zip(edited, writers, strict=True) if each.edit is not None]
    said = []
    for operator, count in Counter(writer.operator for writer in exact).most_common():
        group = [writer for writer in exact if writer.operator == operator]
        explained = float(np.median([writer.explained for writer in group]))
        rounding = float(np.median([writer.rounding for writer in group]))
        said.append(
            f"In {count} of {len(edited)} edited tensors the difference is {_FORMULAS.get(operator, operator)} up to "
            f"rounding: {_share(explained)} explained, and what is left is {rounding:.2g} times what rounding each "
            "number once makes."
        )
    others = [writer for each, writer in zip(edited, writers, strict=True) if each.edit is None]
    if others:
        correlation = float(np.median([writer.correlation or 0.0 for writer in others]))
        explained = float(np.median([writer.explained for writer in others]))
        said.append(
            f"In {len(others)} tensors what the difference has along its directions is what A had there, taken away "
            f"(correlation {correlation:.3f}), which explains {_share(explained)} of it: more than chance, not all."
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
    return said + _about_strength(writers)


_FORMULAS = {
    "ablation": "-s V V^T A",
    "norm-preserving ablation (vectors)": "that of an ablation after which each vector has its length again",
    "norm-preserving ablation (rows)": "that of an ablation after which each row has its length again",
    "ablation of unit rows": "that of an ablation of rows of length one",
    "oblique erasure": "-L R^T A with one L and one R",
    "addition": "one vector added to every row",
}


def _about_strength(writers: Sequence[EditedWriter]) -> list[str]:
    strengths = [writer.strength for writer in writers if writer.strength is not None]
    if not strengths:
        return []
    lefts = [writer.left for writer in writers if writer.left is not None]
    low, high = min(strengths), max(strengths)
    span = f"{np.median(strengths):.3g}" if high - low <= 2 * _NEAR else f"{low:.3g} to {high:.3g}"
    left = f"; of the components along the directions {_share(float(np.median(lefts)))} is left" if lefts else ""
    return [f"Strength {span}{left}."]


def _about_rest(
    given: Evidence, edited: Sequence[TensorVerdict], rest: Sequence[TensorVerdict]
) -> tuple[list[str], list[str]]:
    """Operators beside the edit, and sentences on them."""
    names, said = [], []
    kinds = Counter(each.rest for each in edited if each.edit is None)
    quantised = kinds["quantisation"] + sum(each.innocent == "quantisation" for each in rest)
    more = kinds["more"] + sum(each.innocent is None and not each.weak for each in rest)
    if quantised:
        names.append(QUANTISATION)
        how = Counter(_how(each) for each in [*edited, *rest] if _how(each)).most_common(1)
        said.append(
            f"What is left in {quantised} tensors is what rounding to a grid makes: {how[0][0] if how else ''}."
        )
    rounded = sum(each.innocent == "rounding" for each in rest)
    if rounded:
        names.append(ROUNDING)
        said.append(f"{rounded} tensors were rounded to another format, and nothing else.")
    if more:
        ranks = [each.rank for each in rest if each.rank]
        name = LOW_RANK if rest and len(ranks) == len([r for r in rest if r.innocent is None]) and ranks else FINE_TUNE
        # Where nothing differs but what was edited, a fine-tune is not what comes to mind: it is not guessed.
        names.append(name if rest else UNDECIDED_REST)
        said.append(f"{more} tensors have changes that neither the edit nor rounding explains.")
    return names, said


def _how(found: TensorVerdict) -> str:
    if found.edit is None and found.component is not None and found.rest == "quantisation":
        return found.rest_how
    return found.innocent_how if found.innocent == "quantisation" else ""


def _other_verdict(given: Evidence, edited: Sequence[TensorVerdict]) -> Verdict:
    matrices = given.matrices
    if not matrices:
        return _without_matrices(given)
    innocent = Counter(each.innocent for each in matrices if each.innocent is not None)
    rest = [each for each in matrices if each.innocent is None]
    names, said = [], []
    for kind, count in innocent.most_common():
        names.append(_INNOCENT[str(kind)])
        ways = Counter(each.innocent_how for each in matrices if each.innocent == kind and each.innocent_how)
        how = f" ({ways.most_common(1)[0][0]})" if ways else ""
        said.append(f"In {count} of {len(matrices)} differing tensors the difference is {_INNOCENT[str(kind)]}{how}.")
    unlike = [each for each in edited if each in rest]
    if len(unlike) >= 2 and shared_directions(unlike, given.width or 0).alike > PURE_SHARED:
        names.append(UNDECIDED)
        said.append(
            f"{len(unlike)} tensors lost what they had along a direction that they share, too few of {len(matrices)} "
            "to call it an edit of the model."
        )
    elif rest:
        ranks = [each.rank for each in rest if each.rank is not None]
        if len(ranks) > 0.9 * len(rest):
            names.append(LOW_RANK)
            said.append(
                f"In {len(ranks)} of {len(matrices)} differing tensors the difference has rank {_span(ranks)} above "
                "rounding, and is not made of what the tensor had along these directions."
            )
        else:
            names.append(FINE_TUNE)
            said.append(
                f"In {len(rest)} of {len(matrices)} differing tensors the difference is spread over many directions, "
                "and no operator on directions explains it."
            )
    return Verdict(
        made_with=tuple(names) or (UNDECIDED,),
        edited=False,
        confidence="undecided" if UNDECIDED in names or not names else ("certain" if not rest else "likely"),
        evidence=tuple(said),
        rows=np.zeros((0, given.width or 0)),
        notes=_notes(given),
    )


PURE_SHARED = 0.9
"""The least mean squared cosine with common directions at which some tensors' losses are no accident."""


def _without_matrices(given: Evidence) -> Verdict:
    constants = _constants(given)
    nothing = np.zeros((0, given.width or 0))
    if constants and len(constants) <= max(1, given.parts.layers // 4):
        values = [np.linalg.norm(_values(given, name)) for name in constants]
        return Verdict(
            made_with=(ADDITION,),
            edited=True,
            confidence="certain" if all(name in given.new_vectors for name in constants) else "likely",
            evidence=(
                f"Nothing differs but {_listed(constants)}: a vector of length {values[0]:.3g} is added to the stream.",
            ),
            rows=nothing,
            constants=tuple(constants),
            recipe=_addition(given, constants),
            notes=_notes(given),
        )
    if given.vectors or constants:
        return Verdict(
            made_with=(UNDECIDED,),
            edited=False,
            confidence="undecided",
            evidence=(f"Only vectors differ (biases, gains): {_listed([*given.vectors, *constants])}.",),
            rows=nothing,
            notes=_notes(given),
        )
    if given.resized:
        name, said = VOCABULARY, f"Tensors have other shapes: {_listed(given.resized)}; their common rows are the same."
    elif given.bytes_only:
        name, said = ROUNDING, f"{len(given.bytes_only)} tensors are stored otherwise; no number differs."
    elif given.undecoded:
        name, said = UNDECIDED, f"The numbers of {_listed(given.undecoded)} cannot be read or are not finite."
    else:
        name, said = NO_CHANGE, "No number of any tensor differs."
    confidence: Confidence = "undecided" if name == UNDECIDED else "certain"
    return Verdict(
        made_with=(name,), edited=False, confidence=confidence, evidence=(said,), rows=nothing, notes=_notes(given)
    )


def _addition(given: Evidence, constants: Sequence[str]) -> dict[str, Any] | None:
    """The recipe of a bias that adds one vector: behind the last writer of a block, for the next one's input."""
    weight = constants[0].removesuffix(".bias") + ".weight"
    part = given.parts.parts.get(weight)
    if len(constants) != 1 or part is None or part.layer is None or part.role != "mlp" or part.gains is not None:
        return None
    return addition(_values(given, constants[0]), part.layer + 1)


def _constants(given: Evidence) -> list[str]:
    """Biases that carry a constant: new ones that are not zero, and changed ones of writers."""
    new = [name for name, values in given.new_vectors.items() if values.any() and len(values) == given.width]
    changed = [
        name
        for name, vector in given.vectors.items()
        if (part := given.parts.parts.get(name)) is not None and part.bias and len(vector.a) == given.width
    ]
    return sorted(new) + sorted(changed)


def _values(given: Evidence, name: str) -> Values:
    return given.new_vectors[name] if name in given.new_vectors else given.vectors[name].b - given.vectors[name].a


def _not_edited(given: Evidence, edited: Sequence[TensorVerdict]) -> tuple[str, ...]:
    names = {each.name for each in edited}
    return tuple(sorted(name for name in given.parts.writers if name not in names))


def _notes(given: Evidence) -> tuple[str, ...]:
    notes = []
    if given.parts.problem:
        notes.append(f"which tensors write to the stream is not known: {given.parts.problem}")
    if given.undecoded:
        notes.append(f"not looked at, since their numbers cannot be read: {_listed(given.undecoded)}")
    if given.resized and given.matrices:
        notes.append(f"not looked at, since their shapes differ: {_listed(given.resized)}")
    return tuple(notes)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _span(numbers: Sequence[int]) -> str:
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def _share(value: float) -> str:
    return f"{value:.2%}" if value < 0.9995 else f"{value:.4f}"
