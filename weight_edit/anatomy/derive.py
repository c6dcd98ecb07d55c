"""The anatomy of an architecture, found on its narrow copy: by structure, checked by numbers, no model by name."""

from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.blocks import StreamValues, block_calls, inner_calls, middle, readers, same
from weight_edit.anatomy.graph import Call, Graph, record
from weight_edit.anatomy.mixing import mixing_parts
from weight_edit.anatomy.parts import Anatomy, Block, Writer
from weight_edit.anatomy.small import build, describe, narrow_model
from weight_edit.anatomy.writers import writers_of
from weight_edit.anatomy.writing import NotUnderstoodError, Writing
from weight_edit.catalogue.kinds import refuse_kinds
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, UsageError, first_line
from weight_edit.threads import one_thread

# As many as it takes for every expert to be chosen by some token.
TOKENS = 32
MAX_LAYERS = 2000


def anatomy_of(config: Any, *, trust_remote_code: bool = False) -> Anatomy:
    """Find every writer to and reader from the residual stream.

    Builds the model narrow, with random parameters, runs it once, and follows the stream from the blocks back to the
    parameters that it comes from. No weights of the real model are read.

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
    inputs = {"input_ids": ids}
    try:
        graph = record(model, inputs)
    except FOREIGN_ERRORS as error:
        raise UnsupportedError(f"{name}: a narrow copy of it does not run ({first_line(error)})") from error
    calls = block_calls(model, graph)
    if not calls:
        raise UnsupportedError(f"{name}: no list of blocks with a residual stream through them was found")
    writing = Writing(graph)
    table = f"{_name_of(model, model.get_input_embeddings())}.weight"
    try:
        writing.follow(value for call in calls for value in (call.given, call.returned) if value is not None)
        writers = writers_of(model, writing, table, calls, mixing_parts(model, inputs, graph, calls))
    except NotUnderstoodError as error:
        raise UnsupportedError(f"{name}: {_where(graph, error)}") from error
    blocks = _blocks(calls, writing, writers)
    head = model.get_output_embeddings()
    if head is None:
        raise UnsupportedError(f"{name} has no unembedding")
    real = build(config, device="meta", trust_remote_code=trust_remote_code)
    shapes = {key: tuple(value.shape) for key, value in real.state_dict().items()}
    return Anatomy(
        architecture=type(model).__name__,
        model_type=str(config.model_type),
        d_model=shapes[writers[0].weight][writers[0].axis],
        embeddings=tuple(writer for writer in writers if writer.layer is None),
        blocks=blocks,
        final_norm=_final_norm(graph, calls[-1]),
        unembedding=_name_of(model, head),
        embedding_weight=table,
        unembedding_weight=f"{_name_of(model, head)}.weight",
        tied=head.weight is model.get_input_embeddings().weight,
        shapes=shapes,
        base_prefix=model.base_model_prefix,
        unused=tuple(sorted({n for n, _ in model.named_parameters()} - graph.used_parameters())),
    )


def _blocks(calls: list[Call], writing: Writing, writers: list[Writer]) -> tuple[Block, ...]:
    stream = StreamValues(writing, (value for call in calls for value in (call.given, call.returned) if value is not None))
    found = {}
    for call in calls:
        if call.name in found or call.given is None:
            continue
        layer = int(call.name.rpartition(".")[2])
        inner = inner_calls(writing.graph, call)
        mid = middle(call, inner, stream)
        points = [call.given] if mid is None or mid.given is None else [call.given, mid.given]
        found[call.name] = Block(
            module=call.name,
            layer=layer,
            writers=tuple(writer for writer in writers if writer.layer == layer),
            readers=tuple(reader for point in points for reader in readers(point, inner, layer)),
            mid=None if mid is None else mid.name,
        )
    return tuple(sorted(found.values(), key=lambda block: block.layer))


def _final_norm(graph: Graph, last: Call) -> str | None:
    """The first module after the blocks that is given what the last of them returned."""
    return next((c.name for c in graph.calls if c.first >= last.last and same(c.given, last.returned)), None)


def _where(graph: Graph, error: NotUnderstoodError) -> str:
    """What writes into the stream without being understood, and in which module it was found."""
    number = None if error.step is None else error.step.number
    around = [c.name for c in graph.calls if number is not None and c.first <= number < c.last]
    place = f"in '{around[0]}', " if around else ""
    return f"{place}{error.reason}, which is not understood"


def _refuse_kinds(config: Any, name: str) -> None:
    reason = refuse_kinds(config)
    if reason is not None:
        raise UnsupportedError(f"{name} {reason}; only decoder language models are supported")
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


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)
