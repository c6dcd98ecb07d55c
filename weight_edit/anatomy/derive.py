"""The anatomy of an architecture, found on its narrow copy: by structure, checked by numbers, no model by name."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.additions import Addition, additions
from weight_edit.anatomy.norms import recognise
from weight_edit.anatomy.parts import Anatomy, Block, Norm, Reader, Writer
from weight_edit.anatomy.small import build, describe, narrow_model
from weight_edit.anatomy.trace import Call, same, trace, within
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, UsageError, first_line
from weight_edit.threads import one_thread

TOKENS = 7
MAX_LAYERS = 2000


def anatomy_of(config: Any, *, trust_remote_code: bool = False) -> Anatomy:
    """Find every writer to and reader from the residual stream.

    Builds the model narrow, with random parameters, runs it once, and explains each step of the stream as a sum of
    module outputs. No weights of the real model are read.

    Args:
        config: a transformers configuration.
        trust_remote_code: allow the config's own modelling code.

    Raises:
        UnsupportedError: with the module that is not understood, or the reason.
    """
    name = describe(config)
    _refuse_kinds(config, name)
    ids = torch.randint(3, 90, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    with one_thread():
        return _derive(config, name, ids, trust_remote_code)


def _derive(config: Any, name: str, ids: Tensor, trust_remote_code: bool) -> Anatomy:
    model: Any = narrow_model(config, trust_remote_code=trust_remote_code)
    try:
        calls = trace(model, ids)
    except FOREIGN_ERRORS as error:
        raise UnsupportedError(f"{name}: a narrow copy of it does not run ({first_line(error)})") from error
    by_name = {call.name: call for call in calls}
    blocks = _block_names(model, config, by_name, name)
    d_model = by_name[blocks[0]].returned.shape[-1]
    parts = _Parts(name, d_model, calls)

    first = by_name[blocks[0]]
    position = calls.index(next(call for call in calls if call.name.startswith(blocks[0] + ".")))
    embeddings = parts.writers(first.given, calls[:position], "the first block's input", layer=None)
    found = [
        parts.block(blocks[layer], layer, by_name[blocks[layer]], list(within(calls, blocks[layer])))
        for layer in range(len(blocks))
    ]
    last = by_name[blocks[-1]].returned
    final_norm = next((c.name for c in calls if same(c.given, last) and not c.name.startswith(blocks[-1])), None)
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if final_norm is None or head is None:
        raise UnsupportedError(f"{name}: no norm and unembedding read the last block's output")
    if not same(by_name[_name_of(model, head)].given, by_name[final_norm].returned):
        raise UnsupportedError(f"{name}: something stands between the norm '{final_norm}' and the unembedding")
    real = build(config, device="meta", trust_remote_code=trust_remote_code)
    return Anatomy(
        architecture=type(model).__name__,
        model_type=str(config.model_type),
        d_model=int(_width(real, embeddings[0])),
        embeddings=embeddings,
        blocks=tuple(found),
        final_norm=final_norm,
        unembedding=_name_of(model, head),
        embedding_weight=f"{_name_of(model, table)}.weight",
        unembedding_weight=f"{_name_of(model, head)}.weight",
        tied=head.weight is table.weight,
        shapes={key: tuple(value.shape) for key, value in real.state_dict().items()},
        base_prefix=model.base_model_prefix,
    )


class _Parts:
    """Turns recorded calls into writers, readers and blocks, or says which one is not understood."""

    def __init__(self, architecture: str, d_model: int, calls: list[Call]) -> None:
        self.architecture = architecture
        self.d_model = d_model
        self.calls = calls

    def writers(self, step: Tensor | None, calls: list[Call], what: str, layer: int | None) -> tuple[Writer, ...]:
        """The linear maps whose outputs make up a step of the stream."""
        summands = None if step is None else additions(step, calls)
        if summands is None:
            parts = sorted({type(call.module).__name__ for call in calls if not list(call.module.children())})
            raise UnsupportedError(
                f"{self.architecture}: {what} is not a sum of module outputs that are understood "
                f"(its parts: {', '.join(parts)}); something else writes into the residual stream"
            )
        return tuple(self._writer(summand, calls, what, layer) for summand in summands)

    def _writer(self, summand: Addition, calls: list[Call], what: str, layer: int | None) -> Writer:
        call, norm = summand.call, None
        if _axis(call.module) is None:
            norm = recognise(call, self.d_model)
            source = next((c for c in calls if same(c.returned, call.given)), None)
            if norm is None or source is None or _axis(source.module) is None:
                raise UnsupportedError(
                    f"{self.architecture}: '{call.name}' ({type(call.module).__name__}) writes into the residual "
                    f"stream ({what}) and is neither a linear map nor a norm behind one"
                )
            call = source
        return self._linear(call, norm, summand.scale, layer, calls)

    def _linear(self, call: Call, norm: Norm | None, scale: float, layer: int | None, calls: list[Call]) -> Writer:
        if isinstance(call.module, nn.Embedding):
            # The two traced sequences hold different tokens at the same positions.
            role = "position" if bool((call.returned[0] == call.returned[-1]).all()) else "embedding"
        else:
            role = "attention" if self._mixes_tokens(call, calls) else "mlp"
        axis = _axis(call.module)
        assert axis is not None
        bias = f"{call.name}.bias" if getattr(call.module, "bias", None) is not None else None
        return Writer(call.name, f"{call.name}.weight", bias, axis, role, layer, norm, scale)

    def _mixes_tokens(self, call: Call, calls: list[Call]) -> bool:
        """Whether the module that holds a writer is handed a mask or a cache: only token mixers are."""
        holders = [c for c in calls if call.name.startswith(c.name + ".")]
        signs = {"attention_mask", "past_key_values", "cache_params", "position_embeddings"}
        return any(holder.keywords & signs for holder in holders)

    def block(self, module: str, layer: int, call: Call, inner: list[Call]) -> Block:
        """A block's writers, readers and middle point."""
        before, after = call.given, call.returned
        assert before is not None
        step = after - before
        writers = self.writers(step, inner, f"what block '{module}' adds", layer)
        mid = self._mid(before, writers, inner)
        points = [before] if mid is None else [before, mid.given]
        readers = tuple(
            reader for point in points if point is not None for reader in self._readers(point, inner, layer)
        )
        return Block(module, layer, writers, readers, None if mid is None else mid.name)

    def _mid(self, before: Tensor, writers: tuple[Writer, ...], inner: list[Call]) -> Call | None:
        if len(writers) < 2:
            return None
        first = writers[0]
        source = first.norm.module if first.norm else first.module
        added = next(call.returned for call in inner if call.name == source)
        middle = before + first.scale * added.reshape(before.shape)
        return next((call for call in inner if same(call.given, middle)), None)

    def _readers(self, point: Tensor, inner: list[Call], layer: int) -> list[Reader]:
        """Linear maps that are given the stream itself, or a norm of it."""
        readers = []
        direct = tuple(c.name for c in inner if _is_linear(c.module) and same(c.given, point))
        if direct:
            readers.append(Reader(None, direct, layer))
        for norm in inner:
            if same(norm.given, point) and recognise(norm, self.d_model) is not None:
                through = tuple(c.name for c in inner if _is_linear(c.module) and same(c.given, norm.returned))
                readers.append(Reader(norm.name, through, layer))
        return readers


def _refuse_kinds(config: Any, name: str) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(f"{name} is an encoder-decoder; only decoder language models are supported")
    layers = getattr(config, "num_hidden_layers", 1)
    if not isinstance(layers, int) or not 0 < layers <= MAX_LAYERS:
        raise UsageError(f"{name}: config.json says num_hidden_layers is {layers}; it must be from 1 to {MAX_LAYERS}")
    try:
        text = config.get_text_config()
    except FOREIGN_ERRORS as error:
        raise UnsupportedError(f"{name}: config.json has no one language model ({first_line(error)})") from error
    if text is not config:
        kind = getattr(text, "model_type", None)
        if not isinstance(kind, str):
            raise UsageError(f"{name}: config.json says that a part of it is a language model, which is no config")
        raise UnsupportedError(
            f"{name} holds a language model ('{kind}') inside a multimodal model, which is not supported"
        )


def _block_names(model: nn.Module, config: Any, by_name: dict[str, Call], name: str) -> list[str]:
    """The list of blocks whose outputs are one another's inputs: the residual stream."""
    wanted = getattr(config, "num_hidden_layers", None)
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) != wanted:
            continue
        names = [f"{path}.{index}" for index in range(len(module))]
        if not all(n in by_name and by_name[n].given is not None for n in names):
            continue
        outputs = [by_name[n] for n in names]
        if any(call.given is None or call.given.shape != call.returned.shape for call in outputs):
            continue
        for earlier, later in pairwise(outputs):
            if not same(later.given, earlier.returned):
                raise UnsupportedError(f"{name}: '{later.name}' is not given the output of '{earlier.name}'")
        return names
    raise UnsupportedError(f"{name}: no list of {wanted} blocks with one residual stream through them was found")


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _axis(module: nn.Module) -> int | None:
    """Where the outputs lie in the module's weight; None for modules that are not linear."""
    if isinstance(module, nn.Linear):
        return 0
    if isinstance(module, nn.Embedding) or type(module).__name__ == "Conv1D":
        return 1
    return None


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


def _width(model: nn.Module, writer: Writer) -> int:
    return model.state_dict()[writer.weight].shape[writer.axis]
