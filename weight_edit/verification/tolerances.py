"""What a complete edit may leave and by how much it may differ from its hooks, by storage dtype."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """The most that a sound edit shows.

    Attributes:
        left: largest |V^T W'| / |V^T W| in the writers that were fully ablated.
        leak: largest |V^T x| / |x| in the stream.
        logits: largest difference between hooked and edited logits, as a fraction of the largest logit or of 1,
            whichever is more.
        kl: mean KL divergence between the two, in nats.
    """

    left: float
    leak: float
    logits: float
    kl: float


# Rounding an edited tensor to its storage dtype puts a trace of the direction back: half a unit in the last place of
# every entry. The tolerances for half precision are about five times what that leaves in small random models
# (tests/verification); those for float32 are the project's own.
TOLERANCES = {
    "float64": Tolerance(1e-5, 1e-5, 1e-4, 1e-6),
    "float32": Tolerance(1e-5, 1e-5, 1e-4, 1e-6),
    "float16": Tolerance(1e-3, 1e-3, 1e-2, 1e-4),
    "bfloat16": Tolerance(1e-2, 7e-3, 7e-2, 1e-3),
}
