"""Which directions to remove *before* a norm so that nothing is left of v *after* it (post-norm blocks).

In Gemma 2/3, OLMo 2 and others a norm stands between the writer and the stream: the stream receives
`gain * z / rms(z)` of the writer's output z. Its component along v is `(gain * v)^T z / rms(z)`, so z must have
none along `gain * v`: projecting z by v itself leaks. LayerNorm first subtracts the mean of z, so there the vector is
`gain * v` less its own mean, and the norm's bias, which goes to the stream as it is, is projected by v.
"""

from weight_edit.edits.arrays import Floats, Numbers, floats
from weight_edit.edits.orthonormal import orthonormal_rows


def before_norm(directions: Numbers, gain: Numbers, *, centred: bool) -> Floats:
    """Orthonormal rows that span `gain * v` for every v, float64.

    Args:
        directions: shape (k, d_model), the directions to be absent from the stream.
        gain: shape (d_model,), what the norm multiplies by (already `1 + weight` where the family has that).
        centred: True for LayerNorm, which subtracts the mean.

    Returns:
        shape (k', d_model) with k' <= k: a direction that the gain sends to zero needs no projection.
    """
    rows = floats(directions) * floats(gain)
    if centred:
        rows = rows - rows.mean(axis=-1, keepdims=True)
    return orthonormal_rows(rows)
