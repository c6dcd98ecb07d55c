"""The parts of the blocks that mix tokens, found by changing the first token."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.blocks import same
from weight_edit.anatomy.graph.graph import Call, Graph
from weight_edit.anatomy.graph.recording import first_tensor


def mixing_parts(model: nn.Module, inputs: Mapping[str, Any], graph: Graph, blocks: Sequence[Call]) -> frozenset[str]:
    """Names of the blocks' direct submodules whose outputs depend on earlier tokens.

    Runs the model once more; every part is given what it was given when it was recorded, but for the first token.

    Args:
        model, inputs: as they were recorded.
        graph: what was recorded.
        blocks: the calls of the blocks.
    """
    names = {call.name for call in blocks}
    parts = {call.name: call for call in reversed(graph.calls) if call.name.rpartition(".")[0] in names}
    mixing: set[str] = set()

    def feed(name: str) -> Any:
        given = parts[name].given

        def replace(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if given is None or given.ndim != 3 or given.shape[1] < 2:
                return None
            changed = given.clone()
            # Not only another sign or length, which a norm or a product of two would hide.
            changed[:, 0] = 2 * given[:, 0] + given[:, 1]
            if args and isinstance(args[0], Tensor) and args[0].shape == given.shape:
                return (changed, *args[1:]), kwargs
            key = next((k for k, v in kwargs.items() if isinstance(v, Tensor) and v.shape == given.shape), None)
            return None if key is None else (args, {**kwargs, key: changed})

        return replace

    def look(name: str) -> Any:
        def compare(_: nn.Module, __: Any, output: Any) -> Any:
            got, wanted = first_tensor([output]), parts[name].returned
            if got is None or got.shape != wanted.shape or got.ndim != 3 or got.shape[1] < 2:
                return output
            if not same(got[:, 1:], wanted[:, 1:]):
                mixing.add(name)
            # The stream stays as it was recorded, for parts that are handed it besides.
            if isinstance(output, Tensor):
                return wanted
            return (wanted, *output[1:]) if type(output) is tuple and output[0] is got else output

        return compare

    handles = []
    for name in parts:
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(feed(name), with_kwargs=True))
        handles.append(module.register_forward_hook(look(name)))
    try:
        with torch.inference_mode():
            model(**inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(mixing)
