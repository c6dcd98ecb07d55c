"""The range of seeds that torch, numpy and scikit-learn all take."""

from weight_edit.errors import UsageError

LARGEST_SEED = 2**32 - 1


def check_seed(seed: int) -> int:
    """The seed, if torch, numpy and scikit-learn all accept it.

    Raises:
        UsageError: below 0 or above `LARGEST_SEED`.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"the seed {str(seed)[:40]} is out of range; take one from 0 to {LARGEST_SEED}")
    return seed
