"""The anatomy of an architecture, found on its narrow copy: by structure, checked by numbers, no model by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from weight_edit.anatomy.blocks import StreamValues, block_calls, inner_calls, middle, readers, same
from weight_edit.anatomy.graph import Call, Graph, record
from weight_edit.anatomy.inputs import image_inputs, text_inputs
from weight_edit.anatomy.kinds import refuse_kinds
from weight_edit.anatomy.mixing import mixing_parts
from weight_edit.anatomy.multimodal_kinds import refuse_multimodal
from weight_edit.anatomy.parts import Anatomy, Block, Writer
from weight_edit.anatomy.small import build, describe, narrow_model
from weight_edit.anatomy.towers import is_multimodal
from weight_edit.anatomy.writers import writers_of
from weight_edit.anatomy.writing import NotUnderstoodError, Writing
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, UsageError, first_line
from weight_edit.threads import one_thread

# As many as it takes for every expert to be chosen by some token.
TOKENS = 32
MAX_LAYERS = 2000


def anatomy_of(config: Any, *, trust_remote_code: bool = False) -> Anatomy:
    """Find every writer to and reader from the residual stream.

    Builds the model narrow, with random parameters, runs it on text, and with an image where it takes any, and follows
    the stream from the blocks back to the parameters that it comes from. No weights of the real model are read.

    Args:
        config: a transformers configuration.
        trust_remote_code: allow the config's own modelling code.

    Raises:
        UnsupportedError: with the module that is not understood, or the reason.
    """
    name = describe(config)
    check_kind(config)
    with one_thread():
        model: Any = narrow_model(config, trust_remote_code=trust_remote_code)
        text = _followed(model, _text(model, name), name)
        head = _unembedding(model, text.graph, name)
        runs, unknown = [text], []
        try:
            images = image_inputs(model, model.config, 1) if is_multimodal(config) else None
            if images is not None:
                runs.append(_followed(model, images, name))
        except (UnsupportedError, *FOREIGN_ERRORS) as error:
            unknown.append(f"images: {first_line(error)}")
        real = build(config, device="meta", trust_remote_code=trust_remote_code)
    unused = _unused(model, runs)
    _check_unused(model, unused, runs, name)
    unknown += [f"'{part}' had no part in any forward pass" for part in _unused_parts(model, unused)]
    shapes = {key: tuple(value.shape) for key, value in real.state_dict().items()}
    writers = _merged(runs, name)
    return Anatomy(
        architecture=type(model).__name__,
        model_type=str(config.model_type),
        d_model=shapes[writers[0].weight][writers[0].axis],
        embeddings=tuple(writer for writer in writers if writer.layer is None),
        blocks=_blocks(runs, writers),
        final_norm=_final_norm(text.graph, text.blocks[-1]),
        unembedding=head,
        embedding_weight=_table(model),
        unembedding_weight=f"{head}.weight",
        tied=model.get_submodule(head).weight is model.get_input_embeddings().weight,
        shapes=shapes,
        base_prefix=model.base_model_prefix,
        images=len(runs) > 1,
        unknown=tuple(unknown),
    )


@dataclass(frozen=True)
class _Run:
    """One forward pass, understood."""

    graph: Graph
    blocks: list[Call]
    writing: Writing
    writers: list[Writer]


def _text(model: Any, name: str) -> dict[str, Any]:
    try:
        return dict(text_inputs(model, TOKENS, 1))
    except FOREIGN_ERRORS as error:
        raise UnsupportedError(f"{name}: no inputs for a narrow copy of it are known ({first_line(error)})") from error


def _followed(model: Any, inputs: Mapping[str, Any], name: str) -> _Run:
    try:
        graph = record(model, inputs)
    except FOREIGN_ERRORS as error:
        raise UnsupportedError(f"{name}: a narrow copy of it does not run ({first_line(error)})") from error
    calls = block_calls(model, graph)
    if not calls:
        raise UnsupportedError(f"{name}: no list of blocks with a residual stream through them was found")
    writing = Writing(graph)
    try:
        writing.follow(_points(calls))
        writers = writers_of(model, writing, _table(model), calls, mixing_parts(model, inputs, graph, calls))
    except NotUnderstoodError as error:
        raise UnsupportedError(f"{name}: {_where(graph, error)}") from error
    return _Run(graph, calls, writing, writers)


def _points(calls: list[Call]) -> list[Any]:
    return [value for call in calls for value in (call.given, call.returned) if value is not None]


def _merged(runs: list[_Run], name: str) -> list[Writer]:
    """The writers of all passes; what only comes in with an image, in front of the blocks, is a projector."""
    found = {writer.weight: writer for writer in runs[0].writers}
    for run in runs[1:]:
        for writer in run.writers:
            known = found.get(writer.weight)
            if known is None:
                found[writer.weight] = replace(writer, role="projector") if writer.layer is None else writer
            elif known.norm != writer.norm or known.axis != writer.axis:
                raise UnsupportedError(f"{name}: '{writer.weight}' is written in another way with images than without")
    return list(found.values())


def _blocks(runs: list[_Run], writers: list[Writer]) -> tuple[Block, ...]:
    found: dict[str, Block] = {}
    for run in runs:
        stream = StreamValues(run.writing, _points(run.blocks))
        for call in run.blocks:
            if call.name in found or call.given is None:
                continue
            layer = int(call.name.rpartition(".")[2])
            inner = inner_calls(run.graph, call)
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


def _unused(model: nn.Module, runs: list[_Run]) -> list[str]:
    used = {name for run in runs for name in run.graph.used_parameters()}
    return sorted({name for name, _ in model.named_parameters()} - used)


def _check_unused(model: nn.Module, unused: list[str], runs: list[_Run], name: str) -> None:
    """A parameter of a block that no pass made use of must not be one that could write."""
    blocks = runs[0].blocks
    width = blocks[0].returned.shape[-1]
    for parameter in unused:
        inside = any(parameter.startswith(call.name.rpartition(".")[0] + ".") for call in blocks[:1])
        if inside and width in model.get_parameter(parameter).shape:
            raise UnsupportedError(f"{name}: '{parameter}' had no part in any forward pass; what it writes is unknown")


def _unused_parts(model: nn.Module, unused: list[str]) -> list[str]:
    """The parts of the model that no pass made any use of: `model.audio_tower`."""

    def part(parameter: str) -> str:
        return ".".join(parameter.split(".")[:2])

    used = {part(name) for name, _ in model.named_parameters() if name not in set(unused)}
    return sorted({part(name) for name in unused} - used)


def _unembedding(model: Any, graph: Graph, name: str) -> str:
    """The output head, as the model says, else the linear map that gave as many numbers as there are logits."""
    head = model.get_output_embeddings()
    if head is not None:
        return _name_of(model, head)
    width = None if graph.output is None else graph.output.shape[-1]
    found = [c for c in graph.calls if isinstance(c.module, nn.Linear) and c.returned.shape[-1] == width]
    if not found:
        raise UnsupportedError(f"{name} has no unembedding")
    return found[-1].name


def _final_norm(graph: Graph, last: Call) -> str | None:
    """The first module after the blocks that is given what the last of them returned."""
    return next((c.name for c in graph.calls if c.first >= last.last and same(c.given, last.returned)), None)


def _where(graph: Graph, error: NotUnderstoodError) -> str:
    """What writes into the stream without being understood, and in which module it was found."""
    number = None if error.step is None else error.step.number
    around = [c.name for c in graph.calls if number is not None and c.first <= number < c.last]
    place = f"in '{around[0]}', " if around else ""
    return f"{place}{error.reason}, which is not understood"


def check_kind(config: Any) -> None:
    """Refuse what has no decoder's residual stream, by its config alone.

    Raises:
        UnsupportedError: an encoder, an encoder-decoder, and the like.
        UsageError: a config that is none of a language model.
    """
    name = describe(config)
    try:
        reason = refuse_kinds(config) or (refuse_multimodal(config) if is_multimodal(config) else None)
        text = config.get_text_config()
    except FOREIGN_ERRORS as error:
        raise UnsupportedError(f"{name}: config.json has no one language model ({first_line(error)})") from error
    if reason is not None:
        raise UnsupportedError(f"{name} {reason}; only decoder language models are supported")
    if not isinstance(getattr(text, "model_type", None), str):
        raise UsageError(f"{name}: config.json says that a part of it is a language model, which is no config")
    layers = getattr(text, "num_hidden_layers", 1)
    if not isinstance(layers, int) or not 0 < layers <= MAX_LAYERS:
        raise UsageError(f"{name}: config.json says num_hidden_layers is {layers}; it must be from 1 to {MAX_LAYERS}")


def _table(model: Any) -> str:
    return f"{_name_of(model, model.get_input_embeddings())}.weight"


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)
