"""The anatomy of an architecture, derived from its narrow copy: by structure and numbers.

No model is known by name.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from weight_edit.anatomy.blocks import StreamValues, inner_calls, middle, readers, same
from weight_edit.anatomy.graph.graph import Graph
from weight_edit.anatomy.inputs.passes import MEDIA, media_run, text_run
from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.anatomy.narrow.classes import speaking_config
from weight_edit.anatomy.narrow.refused_kinds import refuse_kinds, refuse_multimodal
from weight_edit.anatomy.narrow.small import build, describe, narrow_model
from weight_edit.anatomy.narrow.sub_configs import is_multimodal, parts
from weight_edit.anatomy.narrow.towers import BLOCKS, text_levels
from weight_edit.anatomy.parts import Anatomy, Block, Writer
from weight_edit.anatomy.trace import Trace, embedding_of, name_of, trace_forward
from weight_edit.anatomy.unused import unused_parts
from weight_edit.errors import UnsupportedError, UsageError, first_line
from weight_edit.utils.name_patterns import general
from weight_edit.utils.threads import one_thread

MAX_LAYERS = 2000


def anatomy_of(config: Any, *, trust_remote_code: bool = False) -> Anatomy:
    """Derive the anatomy of a config: every writer to and reader from the residual stream.

    Builds the model narrow, with random parameters, runs it on text, and with an image or a sound where it takes any,
    and follows the stream from the blocks back to the parameters that it comes from. No weights of the real model are
    read.

    Args:
        config: a transformers configuration.
        trust_remote_code: allow the config's own modelling code.

    Raises:
        UnsupportedError: with the module that is not understood, or the reason.
        UsageError: a config that is none of a language model.
    """
    anatomy, _ = anatomy_with_model(config, trust_remote_code=trust_remote_code)
    return anatomy


def anatomy_with_model(config: Any, *, trust_remote_code: bool = False) -> tuple[Anatomy, nn.Module]:
    """The result of `anatomy_of`, with the full-size model on the meta device."""
    check_kind(config)
    name = describe(config)
    with one_thread():
        model: Any = narrow_model(config, trust_remote_code=trust_remote_code)
        text = trace_forward(model, _text(model, name), name)
        media, unknown = _media(model, name)
        real = build(config, device="meta", trust_remote_code=trust_remote_code)
    passes = [text, *media.values()]
    unknown += unused_parts(model, passes, name)
    shapes = {key: tuple(value.shape) for key, value in real.state_dict().items()}
    writers = _merged(passes, name)
    _check_real(writers, shapes, set(model.state_dict()), name)
    head = _unembedding(model, text.graph, name)
    anatomy = Anatomy(
        architecture=type(model).__name__,
        model_type=str(config.model_type),
        d_model=shapes[writers[0].weight][writers[0].axis],
        embeddings=tuple(writer for writer in writers if writer.layer is None),
        blocks=_blocks(passes, writers),
        final_norm=_final_norm(text),
        unembedding=head,
        embedding_weight=embedding_of(model),
        unembedding_weight=f"{head}.weight",
        tied=model.get_submodule(head).weight is model.get_input_embeddings().weight,
        also_tied=tuple(sorted(set(getattr(model, "all_tied_weights_keys", ())) - {f"{head}.weight"})),
        shapes=shapes,
        media=tuple(media),
        unknown=tuple(unknown),
        text_levels=text_levels(config),
    )
    return anatomy, real


def check_kind(config: Any) -> None:
    """Refuse, by its config alone, a model that is no decoder.

    Raises:
        UnsupportedError: an encoder, an encoder-decoder, and the like.
        UsageError: a config that is none of a language model.
    """
    name = describe(config)
    try:
        reason = refuse_kinds(config)
        speaking = speaking_config(config)
        reason = reason or (refuse_multimodal(speaking) if is_multimodal(speaking) else None)
        text = speaking.get_text_config()
    except MODEL_ERRORS as error:
        raise UnsupportedError(f"{name}: config.json has no one language model ({first_line(error)})") from error
    if reason is not None:
        raise UnsupportedError(f"{name} {reason}; only decoder language models are supported")
    if not isinstance(getattr(text, "model_type", None), str):
        raise UsageError(f"{name}: config.json says that a part of it is a language model, which is no config")
    layers = getattr(text, "num_hidden_layers", 1)
    if not isinstance(layers, int) or not 0 < layers <= MAX_LAYERS:
        raise UsageError(f"{name}: its config says num_hidden_layers is {layers}; it must be from 1 to {MAX_LAYERS}")
    _check_towers(speaking, name)


def _check_towers(config: Any, name: str) -> None:
    """Refuse towers with so many blocks that building the full-size model would take hours."""
    for part, tower in parts(config):
        for key in BLOCKS:
            number = vars(tower).get(key)
            if isinstance(number, int) and number > MAX_LAYERS:
                raise UsageError(f"{name}: config.json says {part}.{key} is {number}; it must be at most {MAX_LAYERS}")
        _check_towers(tower, name)


def _text(model: Any, name: str) -> Mapping[str, Any]:
    try:
        return text_run(model, 1)
    except MODEL_ERRORS as error:
        raise UnsupportedError(f"{name}: no inputs for a narrow copy of it are known ({first_line(error)})") from error


def _media(model: Any, name: str) -> tuple[dict[str, Trace], list[str]]:
    """The understood passes with images and sounds, and a sentence for each other medium."""
    found, unknown = {}, []
    for medium in MEDIA:
        try:
            inputs = media_run(model, medium, 1)
            if inputs is not None:
                found[medium] = trace_forward(model, inputs, medium)
        except (UnsupportedError, *MODEL_ERRORS) as error:
            reason = first_line(error)
            unknown.append(reason if reason.startswith(medium) else f"{medium}: {reason}")
    return found, unknown


def _merged(passes: list[Trace], name: str) -> list[Writer]:
    """The writers of all passes; one that only media use, before the blocks, is a projector."""
    found = {writer.weight: writer for writer in passes[0].writers}
    for followed in passes[1:]:
        for writer in followed.writers:
            known = found.get(writer.weight)
            if known is None:
                found[writer.weight] = replace(writer, role="projector") if writer.layer is None else writer
            elif (known.norm, known.axis) != (writer.norm, writer.axis):
                raise UnsupportedError(f"{name}: '{writer.weight}' is written in another way with images than without")
    return list(found.values())


def _check_real(writers: list[Writer], shapes: Mapping[str, Any], narrow: set[str], name: str) -> None:
    """Refuse a full-size model whose writers differ in kind from the narrow copy's."""
    kinds = {general(writer.weight) for writer in writers}
    known = {general(parameter) for parameter in narrow}
    width = shapes[writers[0].weight][writers[0].axis]
    for parameter in sorted(shapes.keys() - narrow):
        if general(parameter) in kinds or (general(parameter) not in known and width in shapes[parameter]):
            raise UnsupportedError(f"{name}: a narrow copy of it has no '{parameter}', so that it cannot be judged")
    for writer in writers:
        if writer.weight not in shapes:
            raise UnsupportedError(f"{name}: a narrow copy of it has '{writer.weight}', and the model has not")
        if shapes[writer.weight][writer.axis] != width:
            raise UnsupportedError(f"{name}: '{writer.weight}' is not as wide as the residual stream")


def _blocks(passes: list[Trace], writers: list[Writer]) -> tuple[Block, ...]:
    found: dict[str, Block] = {}
    for followed in passes:
        stream = StreamValues(followed.writing, followed.points)
        for call in followed.calls:
            if call.name in found or call.given is None:
                continue
            layer = int(call.name.rpartition(".")[2])
            inner = inner_calls(followed.graph, call)
            mid = middle(call, inner, stream)
            read_at = [call.given] if mid is None or mid.given is None else [call.given, mid.given]
            found[call.name] = Block(
                module=call.name,
                layer=layer,
                writers=tuple(writer for writer in writers if writer.layer == layer),
                readers=tuple(reader for point in read_at for reader in readers(point, inner, layer)),
                mid=None if mid is None else mid.name,
            )
    return tuple(sorted(found.values(), key=lambda block: block.layer))


def _unembedding(model: Any, graph: Graph, name: str) -> str:
    """The name of the output head: as the model says, else the last map to the logits' width."""
    head = model.get_output_embeddings()
    if head is not None:
        return name_of(model, head)
    width = None if graph.output is None else graph.output.shape[-1]
    found = [c.name for c in graph.calls if isinstance(c.module, nn.Linear) and c.returned.shape[-1] == width]
    if not found:
        raise UnsupportedError(f"{name} has no unembedding")
    return found[-1]


def _final_norm(text: Trace) -> str | None:
    """The first module after the blocks whose input is the finished stream."""
    last, end = text.calls[-1], text.points[-1]
    return next((c.name for c in text.graph.calls if c.first >= last.last and same(c.given, end)), None)
