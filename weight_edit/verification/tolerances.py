"""Tolerances of the model checks.

In float32 they are constants; in coarser storage dtypes, multiples of the base's own noise on the same prompts.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weight_edit.verification.faithfulness import Agreement


@dataclass(frozen=True)
class Tolerance:
    """Upper bounds on the figures of a sound edit.

    Attributes:
        leak: largest |V^T x| / |x| in the stream.
        logits: largest difference between hooked and edited logits.
        kl: mean KL divergence between the two, in nats.
    """

    leak: float
    logits: float
    kl: float

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        return asdict(self)


STRICT = Tolerance(leak=1e-5, logits=1e-4, kl=1e-6)
"""The tolerance of models stored and computed in float32 or better; no tolerance is less.

`logits` is a fraction of the largest logit or of 1, whichever is larger.
"""

IN_FLOAT32 = 2.0
"""The factor on the noise when an edit stored in a coarser dtype is computed in float32.

Rounding of the weights is the only error there; the noise is that of other roundings of the same weights.
"""

IN_STORAGE = 4.0
"""The factor on the noise when the models are computed in the storage dtype.

Each of the two compared models has its own noise, and the edited one that of its rounded weights; the rest allows for
chance on few prompts.
"""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The storage dtype's effect on the unedited base, on the same prompts.

    Attributes:
        dtype: the storage dtype.
        computing: the base in float32 against itself in the storage dtype.
        hooked: the same with the edit as hooks, which can make a model more sensitive to rounding than it was.
        weights: the base with the edit as hooks, in float32, against the same with the weights that the edit changes
            moved at random by as much as rounding to the storage dtype moves them.
        padding: in the storage dtype, a batch of one prompt against one beside a longer prompt, padded.
        leak: the largest share of the stream along the directions, in the storage dtype, of the base whose writers'
            outputs go through the edit as hooks: they take out all, and rounding puts so much back.
    """

    dtype: str
    computing: "Agreement"
    hooked: "Agreement"
    weights: "Agreement"
    padding: "Agreement"
    leak: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "dtype": self.dtype,
            "float32_against_storage": self.computing.to_dict(),
            "float32_against_storage_hooked": self.hooked.to_dict(),
            "rounded_weights_hooked": self.weights.to_dict(),
            "padded_against_alone": self.padding.to_dict(),
            "leak_of_hooked_base": self.leak,
        }

    def tolerance(self, dtype: str, scale: float, left: float = 0.0) -> Tolerance:
        """The tolerance for an edit computed in `dtype`.

        The padding plays no part: what it does beyond the noise of computing would be the model's doing, and no reason
        to let an edit pass.

        Args:
            dtype: in which the models computed.
            scale: the largest logit of the base with hooks.
            left: the leak that rounding to a quantised format explains: the base's own, times the share of `V^T W` that
                the edited weights have left.
        """
        strict = strict_tolerance(scale)
        logits, kl = self.weights.largest, self.weights.kl
        times = IN_FLOAT32
        if dtype != "float32":
            times = IN_STORAGE
            logits += max(self.computing.largest, self.hooked.largest)
            kl += max(self.computing.kl, self.hooked.kl)
        return Tolerance(
            leak=_most(strict.leak, times * (self.leak + left)),
            logits=_most(strict.logits, times * logits),
            kl=_most(strict.kl, times * kl),
        )


def strict_tolerance(scale: float) -> Tolerance:
    """`STRICT` for logits of a given size."""
    return Tolerance(STRICT.leak, STRICT.logits * max(1.0, scale), STRICT.kl)


def _most(strict: float, noise: float) -> float:
    """The larger of the two bounds; a noise of NaN or infinity counts as none."""
    return max(strict, noise) if math.isfinite(noise) else strict
