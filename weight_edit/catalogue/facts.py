"""What kinds of structure an architecture has, read off its anatomy and its layout on disk: for the page of families."""

from typing import Any

from weight_edit.anatomy.layout import Layout
from weight_edit.anatomy.parts import Anatomy

KINDS = {
    "norm between writer and stream": "edited along gain * v; `1 + weight` and centred norms alike",
    "parallel blocks": "nothing to do: each writer is edited, whatever it reads",
    "biases": "projected like the outputs they are added to",
    "outputs along another axis": "Conv1D and experts: the axis is found by trying, not by shape",
    "experts": "a stack of matrices is edited along its stream axis; routers are left alone",
    "one tensor per expert on disk": "each of them is edited where it lies",
    "learned positions": "edited like the token embedding",
    "map in front of the blocks": "the embedding is narrower than the stream, or is mapped to further streams: the map is edited",
    "scaled": "a constant factor between writer and stream changes nothing",
    "blocks that mix tokens without attention, or not at all": "state space, linear attention, convolution: their output map",
    "images": "what brings images in is edited too, or kept with `--projector keep`",
    "names or layout of its own on disk": "tensors are found by transformers' own conversion",
    "tied embeddings": "`--embeddings keep`, `untie` or `skip`",
}
"""Kind -> how it is handled."""


def kinds_of(anatomy: Anatomy, layout: Layout) -> list[str]:
    """The kinds that an architecture is of, in the order of `KINDS`.

    Args:
        anatomy: of a model.
        layout: of its checkpoint.
    """
    writers = anatomy.writers
    blocks = anatomy.blocks
    pieces = {name: sum(run.count for run in runs) for name, runs in layout.parameters.items()}
    experts = [writer for writer in writers if len(anatomy.shapes[writer.weight]) == 3]
    has: dict[str, Any] = {
        "norm between writer and stream": any(writer.norm and writer.layer is not None for writer in writers),
        "parallel blocks": any(block.mid is None and len(block.writers) > 1 for block in blocks),
        "biases": any(writer.bias for writer in writers),
        "outputs along another axis": any(writer.axis and writer.layer is not None for writer in writers),
        "experts": experts,
        "one tensor per expert on disk": any(pieces.get(writer.weight, 0) > 1 for writer in experts),
        "learned positions": any(writer.role == "position" for writer in writers),
        "map in front of the blocks": any(writer.role == "input" for writer in writers),
        "scaled": any(abs(writer.scale - 1) > 1e-3 for writer in writers),
        "images": bool(anatomy.media),
        "names or layout of its own on disk": any(
            run.head != name or run.count > 1 for name, runs in layout.parameters.items() for run in runs
        ),
        "tied embeddings": anatomy.tied,
    }
    return [kind for kind in KINDS if has.get(kind)]
