"""The writers of the stream: weights with biases, norms behind them, and places for hooks."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from torch import nn

from weight_edit.anatomy.backtrace import Backtrace, StreamSource
from weight_edit.anatomy.graph.graph import Call
from weight_edit.anatomy.norms import CENTRING, NORMALISING, Through, turning
from weight_edit.anatomy.parts import Norm, Writer


def writers_of(
    model: nn.Module, writing: Backtrace, embedding: str, blocks: Sequence[Call], mixing: Collection[str]
) -> list[Writer]:
    """All writers, in the order in which they add to the stream.

    Args:
        model: that was recorded.
        writing: followed from all of its blocks.
        embedding: name of the token embedding's weight.
        blocks: calls of its blocks.
        mixing: names of the parts of blocks that mix tokens.
    """
    parameters = dict(model.named_parameters())
    sources = list(writing.sources.values())
    biases = _biases(sources, parameters)
    norm_biases = {name for source in sources for name in _norm_bias(source, sources)}
    found = []
    for source in sources:
        if source.parameter in biases.values() or source.parameter in norm_biases:
            continue
        bias = biases.get(source.parameter)
        weight = parameters[source.parameter]
        block = _block_of(source.parameter, blocks)
        call = _hooked_call(writing, source)
        found.append(
            (
                source.step.number if source.step is not None else 0,
                Writer(
                    module="" if call is None else call.name,
                    weight=source.parameter,
                    axis=weight.ndim + source.axis,
                    bias=bias,
                    bias_axis=0 if bias is None else parameters[bias].ndim - 1,
                    role=_role(source, embedding, block, mixing),
                    layer=None if block is None else int(block.name.rpartition(".")[2]),
                    norm=_norm(source, sources),
                    scale=float(f"{source.scale:.5g}"),
                ),
            )
        )
    return [writer for _, writer in sorted(found, key=lambda pair: pair[0])]


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _biases(sources: Iterable[StreamSource], parameters: dict[str, nn.Parameter]) -> dict[str, str]:
    """Weight -> its bias: in the same module and behind the same norm."""
    found: dict[str, str] = {}
    by_owner: dict[tuple[str, Through], list[StreamSource]] = {}
    for source in sources:
        by_owner.setdefault((_owner(source.parameter), source.through), []).append(source)
    for members in by_owner.values():
        weights = [m for m in members if parameters[m.parameter].ndim >= 2]
        for member in members:
            ndim = parameters[member.parameter].ndim
            for weight in weights:
                stem = weight.parameter.removesuffix("weight")
                fits = parameters[weight.parameter].ndim == ndim + 1 and member.parameter.startswith(stem)
                if fits and weight.parameter not in found:
                    found[weight.parameter] = member.parameter
    return found


def _gain(through: Through) -> str | None:
    return next((factor.parameter for factor in through if factor.parameter is not None), None)


def _norm_bias(source: StreamSource, sources: Iterable[StreamSource]) -> list[str]:
    """The bias of the norm between a source and the stream."""
    gain = _gain(source.through)
    if gain is None:
        return []
    return [s.parameter for s in sources if _owner(s.parameter) == _owner(gain) and s.through == ()]


def _norm(source: StreamSource, sources: Iterable[StreamSource]) -> Norm | None:
    """The norm between a source and the stream, with any inner norms."""
    if not source.through:
        return None
    norm = None
    for factors in reversed([part for part in _norms_apart(source.through) if turning(part)]):
        gain = next((factor for factor in factors if factor.parameter is not None), None)
        kind = "layer" if CENTRING in factors else "rms" if NORMALISING in factors else "gain"
        weight = None if gain is None else gain.parameter
        module = "" if weight is None else _owner(weight)
        norm = Norm(
            module=module,
            kind=kind,
            gain_offset=0.0 if gain is None else gain.offset,
            weight=weight,
            bias=None,
            inner=norm,
        )
    if norm is None:
        return Norm(module="", kind="rms", gain_offset=0.0, weight=None, bias=None)
    return replace(norm, bias=next(iter(_norm_bias(source, sources)), None))


def _norms_apart(through: Through) -> list[Through]:
    """The factors split by norm, from the stream towards the writer.

    Within a norm, centring comes first and the gain last.
    """
    found: list[Through] = []
    last = 0
    for factor in through:
        place = 0 if factor.parameter is not None else 1 if factor == NORMALISING else 2
        if not found or place <= last:
            found.append(())
        last = place
        found[-1] = (*found[-1], factor)
    return found


def _hooked_call(writing: Backtrace, source: StreamSource) -> Call | None:
    """The innermost module call whose output consists of a source's vectors alone.

    Several parameters of one module may share it: the weights of fused experts with their biases. There is none for a
    vector that a module leaves to others to add. Hooks edit an output's last axis: where the vectors of an output lie
    along another, as those of a convolution do, the module around it gives them as rows.
    """
    path = _owner(source.parameter)
    while path:
        for call in writing.graph.calls:
            carried = writing.carried(call.returned) if call.name == path else None
            if carried is not None and carried.axis == -1 and carried.through == source.through:
                behind = writing.parameters_behind(call.returned)
                if source.parameter in behind and all(name.startswith(path + ".") for name in behind):
                    return call
        path = path.rpartition(".")[0]
    return None


def _block_of(parameter: str, blocks: Sequence[Call]) -> Call | None:
    return next((call for call in blocks if parameter.startswith(call.name + ".")), None)


def _role(source: StreamSource, embedding: str, block: Call | None, mixing: Collection[str]) -> str:
    if source.parameter == embedding:
        return "embedding"
    if source.step is not None and source.step.name == "aten.embedding.default":
        return "position"
    if block is None:
        return "input"
    return "attention" if any(source.parameter.startswith(part + ".") for part in mixing) else "mlp"
