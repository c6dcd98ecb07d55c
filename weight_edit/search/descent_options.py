"""The settings of a descent, apart from what descends: they are checked before torch is imported."""

from typing import Annotated

from pydantic import Field

from weight_edit.search.strengths import LARGEST
from weight_edit.utils.seeds import LARGEST_SEED
from weight_edit.utils.settings import Section


class DescentOptions(Section):
    """Settings of a descent.

    Attributes:
        prices: of damage, one after the other: with a price of 1, the plain full ablation's damage costs as much as
            one nat of a refused prompt's ratio.
        steps: of the optimiser (Adam) at each price.
        directions: how many are optimised, kept orthonormal: the start's, and random ones beside them. With 0 the
            start's stay as they are, and strengths alone are optimised.
        rate: of strengths, learning rate on the logit of their share of the largest.
        direction_rate: of directions, in radians: by how much one turns in a step, about, at first.
        answers: weight of the answers' own likelihood.
        batch: texts of each kind in a step, at most.
        refresh: steps after which refusals are generated anew.
        joined: generated refusals that are kept beside the first ones, at most; the newest.
        largest: strength.
        seed: of the batches, and of directions beside the start's.
    """

    prices: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.01, 0.1, 1.0, 10.0)
    steps: Annotated[int, Field(ge=1)] = 40
    directions: Annotated[int, Field(ge=0, le=16)] = 4
    rate: Annotated[float, Field(gt=0)] = 0.15
    direction_rate: Annotated[float, Field(gt=0)] = 0.1
    answers: Annotated[float, Field(ge=0)] = 1.0
    batch: Annotated[int, Field(ge=1)] = 16
    refresh: Annotated[int, Field(ge=1)] = 10
    joined: Annotated[int, Field(ge=0)] = 256
    largest: Annotated[float, Field(gt=0, le=LARGEST)] = 1.5
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
