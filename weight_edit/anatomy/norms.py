"""What a norm between a writer and the stream computes, told from its input and output rather than its class."""

from weight_edit.anatomy.parts import Norm
from weight_edit.anatomy.trace import Call


def recognise(call: Call, d_model: int) -> Norm | None:
    """The norm that a call is, or None when it is none that we know.

    Tries `g * x / rms(x)` and `g * (x - mean) / std + b` with g = weight or 1 + weight, and keeps the one that
    reproduces the recorded output.
    """
    weight = getattr(call.module, "weight", None)
    if call.given is None or weight is None or tuple(weight.shape) != (d_model,):
        return None
    if call.given.shape != call.returned.shape:
        return None
    bias = getattr(call.module, "bias", None)
    shift = 0.0 if bias is None else bias.detach().double()
    x = call.given
    centred = x - x.mean(-1, keepdim=True)
    for kind, z in (("rms", x), ("layer", centred)):
        unit = z / z.square().mean(-1, keepdim=True).sqrt()
        for offset in (0.0, 1.0):
            wanted = (offset + weight.detach().double()) * unit + shift
            # The tolerance leaves room for the norm's epsilon, not for a wrong formula on random gains.
            if (wanted - call.returned).abs().max() < 5e-3 * call.returned.abs().max():
                name = call.name
                return Norm(name, kind, offset, f"{name}.weight", None if bias is None else f"{name}.bias")
    return None
