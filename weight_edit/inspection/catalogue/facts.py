"""Structural kinds of an architecture, by its anatomy, disk layout and narrow copy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from weight_edit.anatomy.blocks import block_calls
from weight_edit.anatomy.disk.layout import Layout
from weight_edit.anatomy.graph.recording import record
from weight_edit.anatomy.mixing import mixing_parts
from weight_edit.anatomy.parts import Anatomy, Norm, Writer

KINDS = {
    "dense blocks": "the output map of attention (or what mixes tokens) and that of the MLP are projected",
    "norm before the readers": "pre-norm: it does not stand between writer and stream, so nothing is to be done",
    "RMS norm behind writers": "`W` is projected along `gain * v`, so that behind the norm nothing lies along `v`",
    "RMS norm behind writers, gain 1 + weight": "the same, with the gain that the norm really applies",
    "LayerNorm behind writers": "the same, along `gain * v` less its mean; the norm's bias is projected by `v`",
    "parallel blocks": "attention and MLP read the same stream; each writer is projected, whatever it reads",
    "biases": "projected like the outputs that they are added to",
    "Conv1D": "stored [in, out]: the axis of the outputs is found by following the operations, never by shape",
    "fused experts": "a stack of matrices is projected along its stream axis; the router is left as it is",
    "one tensor per expert on disk": "each of them is projected where it lies",
    "dense map beside the experts": "shared experts, or an MLP beside them, are writers like any other",
    "mixers without softmax": "state space, linear attention, convolution: their output map is a writer like any other",
    "low-rank attention": "latent attention (MLA): what is compressed stays inside; the output map is the writer",
    "scaled writers": "a constant between writer and stream changes no direction",
    "learned positions": "position embeddings are projected like the token embedding",
    "maps in front of the blocks": "the embedding is narrower than the stream, or is mapped: the map is projected",
    "embeddings that do not write": "tables that gate or feed a block (per-layer inputs); the map behind them writes",
    "several streams": "hyper-connections: each stream is measured; whatever is added to any of them is projected",
    "images": "what brings images in is projected too, or left (`--projector skip`); proven with and without one",
    "sounds": "as images",
    "names or layout of its own on disk": "tensors are found by transformers' own conversion and edited where they lie",
    "tied embeddings": "`--embeddings both`, `untie` or `skip`",
    "layers that transformers does not load": "such as multi-token prediction: kept, or edited with `--mtp edit`",
}
"""Kind of structure -> how it is handled."""

_NORMS = {
    ("rms", 0.0): "RMS norm behind writers",
    ("rms", 1.0): "RMS norm behind writers, gain 1 + weight",
    ("layer", 0.0): "LayerNorm behind writers",
    ("layer", 1.0): "LayerNorm behind writers",
}


def kinds_of(anatomy: Anatomy, layout: Layout, model: nn.Module, found: "Seen") -> list[str]:
    """The structural kinds of an architecture, in the order of `KINDS`.

    Args:
        anatomy: of the model.
        layout: of its checkpoint.
        model: a narrow copy.
        found: on that copy.
    """
    writers, blocks = anatomy.writers, anatomy.blocks
    pieces = {name: sum(run.count for run in runs) for name, runs in layout.parameters.items()}
    inside = [writer for writer in writers if writer.layer is not None]
    experts = [writer for writer in inside if len(anatomy.shapes[writer.weight]) == 3]
    norms = {_NORMS.get((norm.kind, norm.gain_offset)) for writer in writers for norm in _norms(writer.norm)}
    has: dict[str, Any] = {
        **{kind: kind in norms for kind in _NORMS.values()},
        "dense blocks": any(all(w not in experts for w in block.writers) for block in blocks),
        "norm before the readers": any(reader.norm for block in blocks for reader in block.readers),
        "parallel blocks": any(block.mid is None and len(block.writers) > 1 for block in blocks),
        "biases": any(writer.bias for writer in writers),
        "Conv1D": any(writer.axis == 1 and len(anatomy.shapes[writer.weight]) == 2 for writer in inside),
        "fused experts": any(pieces.get(writer.weight, 0) == 1 for writer in experts),
        "one tensor per expert on disk": any(pieces.get(writer.weight, 0) > 1 for writer in experts),
        "dense map beside the experts": any(_beside(block.writers, experts) for block in blocks),
        "mixers without softmax": found.mixers,
        "low-rank attention": _says(model, "kv_lora_rank"),
        "scaled writers": any(abs(writer.scale - 1) > 1e-3 for writer in writers),
        "learned positions": any(writer.role == "position" for writer in writers),
        "maps in front of the blocks": any(writer.role == "input" for writer in writers),
        "embeddings that do not write": _silent_tables(anatomy, model),
        "several streams": found.streams,
        "images": "images" in anatomy.media,
        "sounds": "sounds" in anatomy.media,
        "names or layout of its own on disk": any(
            run.head != name or run.count > 1 for name, runs in layout.parameters.items() for run in runs
        ),
        "tied embeddings": anatomy.tied,
        "layers that transformers does not load": _ignored_layers(model),
    }
    return [kind for kind in KINDS if has.get(kind)]


@dataclass(frozen=True)
class Seen:
    """Facts from one forward pass of a narrow copy that its anatomy lacks.

    Attributes:
        mixers: classes of the parts of blocks that mix tokens and take no softmax.
        streams: whether several streams run through the blocks.
    """

    mixers: tuple[str, ...]
    streams: bool


def seen(model: nn.Module, inputs: Mapping[str, Any]) -> Seen:
    """The facts from one forward pass of a narrow copy.

    Args:
        model: the copy.
        inputs: keyword arguments of a forward pass.
    """
    graph = record(model, inputs)
    blocks = block_calls(model, graph)
    parts = mixing_parts(model, inputs, graph, blocks)
    softmax = [step.number for step in graph.steps if "softmax" in step.name]
    mixers: dict[str, None] = {}
    for call in graph.calls:
        if call.name in parts and not any(call.first <= number < call.last for number in softmax):
            mixers[type(call.module).__name__] = None
    return Seen(tuple(mixers), any(call.given is not None and call.given.ndim > 3 for call in blocks))


def _norms(norm: Norm | None) -> list[Norm]:
    return [] if norm is None else [norm, *_norms(norm.inner)]


def _beside(writers: tuple[Writer, ...], experts: list[Writer]) -> bool:
    return any(w in experts for w in writers) and any(w.role == "mlp" and w not in experts for w in writers)


def _says(model: Any, key: str) -> bool:
    return bool(vars(model.config.get_text_config()).get(key))


def _silent_tables(anatomy: Anatomy, model: nn.Module) -> bool:
    """Whether a table over the vocabulary is not added to the stream."""
    writing = {writer.weight for writer in anatomy.writers} | {anatomy.embedding_weight}
    words = model.get_parameter(anatomy.embedding_weight).shape[0]
    tables = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    return any(f"{name}.weight" not in writing and module.num_embeddings >= words // 2 for name, module in tables)


def _ignored_layers(model: Any) -> bool:
    """Whether transformers skips layers that published checkpoints of the class hold."""
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return any("mtp" in pattern or "layers" in pattern for pattern in patterns)
