"""All that a verdict on two models is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from weight_edit.difference.model_parts import ModelParts
from weight_edit.difference.pairs import Values
from weight_edit.difference.tensor_verdict import TensorVerdict


@dataclass(frozen=True, eq=False)
class VectorChange:
    """A differing vector: a bias, or gains.

    Attributes:
        name: of the tensor.
        a, b: before and after.
        unit: the distance between neighbouring numbers of the format around b.
    """

    name: str
    a: Values
    b: Values
    unit: Values

    @property
    def constant(self) -> bool:
        """Whether all of b is one number, and a was not."""
        return len(self.b) > 1 and bool((self.b == self.b[0]).all()) and not bool((self.a == self.a[0]).all())

    @property
    def noise(self) -> float:
        """The expected |error|^2 of rounding every number to the nearest of the format."""
        return float(np.vdot(self.unit, self.unit)) / 12


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """All that a verdict is made of. Each tensor that is not the same in both models is in one of these.

    Attributes:
        matrices: the verdicts on differing matrices.
        vectors: the differing vectors.
        new_vectors: vectors that only the second model has.
        added: other tensors that only the second model has.
        missing: tensors that only the first model has.
        copied: unembeddings that only one of the two stores, and that are the embedding's copy.
        unread: differing tensors whose numbers were not looked at.
        resized: tensors of another shape, of which no rows were compared.
        vocabulary: embeddings and unembeddings of another number of rows; where rows that both have differ, they are
            among the matrices, too.
        bytes_only: tensors whose numbers are the same in other bytes, or in another format.
        parts: of the first model.
        width: of the stream.
        eraser: L and R of one oblique eraser, (d, k) each, where the differences follow one.
        notes: what was not looked for.
    """

    matrices: Sequence[TensorVerdict]
    vectors: Mapping[str, VectorChange] = field(default_factory=dict)
    new_vectors: Mapping[str, Values] = field(default_factory=dict)
    added: Sequence[str] = ()
    missing: Sequence[str] = ()
    copied: Sequence[str] = ()
    unread: Sequence[str] = ()
    resized: Sequence[str] = ()
    vocabulary: Sequence[str] = ()
    bytes_only: Sequence[str] = ()
    parts: ModelParts
    width: int | None
    eraser: tuple[Values, Values] | None = None
    notes: Sequence[str] = ()

    @property
    def known(self) -> bool:
        """Whether the anatomy tells what writes to the stream."""
        return bool(self.parts.parts)
