"""The edits of multi-token-prediction layers, which a checkpoint holds beside the model."""

from collections.abc import Iterable

from weight_edit.anatomy.disk.mtp import EMBEDDING, NORM_BIAS, MtpWriter
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.errors import UsageError
from weight_edit.plan.plan import EditPlan
from weight_edit.plan.writer_edits import ParameterReader, map_before
from weight_edit.utils.arrays import Numbers

MTP_MODES = ("edit", "skip")


def mtp_edits(plan: EditPlan, writers: Iterable[MtpWriter], read: ParameterReader[Numbers]) -> dict[str, TensorEdit]:
    """The edits of the MTP layers' tensors, by their names on disk.

    A copy of the embedding goes through what the model's embedding does, so that the two stay equal.

    Args:
        plan: of the model.
        writers: of the MTP layers.
        read: gives a tensor on disk by name, such as a norm's gains.

    Raises:
        UsageError: the edit is not one map of the whole stream.
    """
    if plan.stream is None or plan.reflections:
        raise UsageError(
            "`mtp='edit'` goes with edits of the whole stream at all layers; leave it out to keep those layers",
            option="mtp",
        )
    embedding = plan.anatomy.embedding_weight
    stream = plan.stream.linear
    own = next((edit.map for edit in plan.edits if edit.writer.weight == embedding), None)
    keep_norms = any(edit.keep_norms for edit in plan.edits)
    edits = {}
    for writer in writers:
        stream_map: LowRankMap | None = stream
        if writer.kind == EMBEDDING:
            stream_map = own
        elif writer.norm is not None and writer.kind != NORM_BIAS:
            stream_map = map_before(writer.norm, stream, read)
        if stream_map is not None:
            keeps = keep_norms and not writer.tensor.endswith("bias")
            edits[writer.tensor] = TensorEdit(stream_map, writer.axis, keep_norms=keeps)
    return edits
