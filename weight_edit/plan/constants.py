"""The parameters that can carry a constant into the stream at a block's input.

They are biases, and the rows of the embedding.
"""

from dataclasses import dataclass

from weight_edit.anatomy.parts import Anatomy, Writer
from weight_edit.errors import UnsupportedError, UsageError


@dataclass(frozen=True)
class ConstantCarrier:
    """A parameter that carries a constant into the stream at the input of a block.

    Attributes:
        layer: the block.
        writer: whose bias it is, or whose rows.
        rows: whether every row of the writer's weight carries it, as of an embedding.
        behind_norm: whether the bias of the norm behind the writer carries it.
    """

    layer: int
    writer: Writer
    rows: bool = False
    behind_norm: bool = False

    @property
    def creates(self) -> str | None:
        """The name of the bias to create; None where an existing parameter takes the constant."""
        if self.rows or self.behind_norm or self.writer.bias is not None:
            return None
        return f"{self.writer.module}.bias"


def constant_carriers(
    anatomy: Anatomy, layer: int, *, embeddings: str = "both", projector: str = "edit"
) -> tuple[ConstantCarrier, ...]:
    """The parameters that add a constant to the stream at a block's input, once per token.

    At block 0 it is the embedding; of images and sounds, whose tokens come past the embedding, the projector. At others
    it is the last writer of the block before.

    Args:
        embeddings, projector: see `plan_edit`.

    Raises:
        UsageError: a layer out of range, or the embedding is needed and not to be edited.
        UnsupportedError: nothing there can carry a constant; says what stands in the way.
    """
    if not 0 <= layer < anatomy.n_layers:
        raise UsageError(f"layer {layer} does not exist: the model's are 0 to {anatomy.n_layers - 1}")
    if layer > 0:
        return (_last_writer(anatomy, layer),)
    if embeddings == "skip":
        raise UsageError(
            "this edit adds a constant to the embedding: leave `embeddings='skip'` out", option="embeddings"
        )
    rows = [w for w in anatomy.embeddings if w.role == "embedding"] or [
        w for w in anatomy.embeddings if w.role == "position"
    ]
    if not rows:
        raise UnsupportedError(
            f"{anatomy.architecture}: no embedding writes to the residual stream, so that no constant can enter with it"
        )
    found = [_carrier(anatomy, 0, rows[0], rows=True)]
    if projector != "skip":
        found += [_projector(anatomy, writer) for writer in anatomy.embeddings if writer.role == "projector"]
    return tuple(found)


def _projector(anatomy: Anatomy, writer: Writer) -> ConstantCarrier:
    """The carrier for a projector, whose tokens bypass the embedding and so need their own bias."""
    if writer.norm is None and writer.bias is None:
        raise UnsupportedError(
            f"{anatomy.architecture}: '{writer.weight}', which brings images or sounds into the residual stream, has "
            "no bias for a constant at the input of layer 0; let it enter later (`at`, or `options: enter=found`)",
            option=("at", "options"),
        )
    return _carrier(anatomy, 0, writer)


def _last_writer(anatomy: Anatomy, layer: int) -> ConstantCarrier:
    """The last writer before a block; where several add in parallel, one with a bias."""
    block = anatomy.blocks[layer - 1]
    last = [writer for writer in block.writers if writer.role == block.writers[-1].role]
    if block.mid is None:
        last = list(block.writers)
    able = [writer for writer in last if writer.bias is not None or (writer.norm is not None and writer.norm.bias)]
    return _carrier(anatomy, layer, (able or last)[-1])


def _carrier(anatomy: Anatomy, layer: int, writer: Writer, rows: bool = False) -> ConstantCarrier:
    norm = writer.norm
    if norm is not None and norm.bias is None:
        raise UnsupportedError(
            f"{anatomy.architecture}: the norm '{norm.module or norm.weight}' between '{writer.weight}' and the "
            f"residual stream has no bias, so that nothing can add a constant at the input of layer {layer}; "
            + (
                "choose another layer (`at`), or let it enter with the embedding (`options: enter=embedding`)"
                if layer
                else "choose an edit without a constant"
            ),
            option=("at", "options"),
        )
    if norm is not None:
        return ConstantCarrier(layer, writer, behind_norm=True)
    if not rows and writer.bias is None and writer.weight != f"{writer.module}.weight":
        raise UnsupportedError(
            f"{anatomy.architecture}: '{writer.weight}', the last to write before layer {layer}, is no linear map that "
            "could have a bias; choose another layer, or an edit without a constant"
        )
    return ConstantCarrier(layer, writer, rows=rows)
