"""The parameters of an architecture as tensors in a checkpoint: their names there, and what nothing accounts for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weight_edit.anatomy.parts import Anatomy
from weight_edit.errors import UnsupportedError, UsageError


@dataclass(frozen=True)
class DiskNames:
    """Where each parameter lies.

    Attributes:
        names: parameter name to tensor name. A tied unembedding that is not stored has none.
        extra: tensors that no parameter accounts for (buffers of old versions, multi-token-prediction layers):
            they are kept as they are.
    """

    names: Mapping[str, str]
    extra: tuple[str, ...]


def names_on_disk(anatomy: Anatomy, tensors: Mapping[str, Sequence[int]]) -> DiskNames:
    """Find every parameter of the model among the tensors of a checkpoint.

    A checkpoint may have been saved from the backbone alone (the original GPT-2), without the prefix that the
    language model puts before the backbone's names.

    Args:
        anatomy: of the model that config.json describes.
        tensors: name to shape, of every tensor on disk.

    Raises:
        UnsupportedError: a parameter is not there, so the layout is not one that is understood.
        UsageError: a tensor has another shape than config.json says.
    """
    prefix = f"{anatomy.base_prefix}."
    names: dict[str, str] = {}
    for parameter, shape in anatomy.shapes.items():
        spellings = dict.fromkeys((parameter, parameter.removeprefix(prefix)))
        found = [spelling for spelling in spellings if spelling in tensors]
        if len(found) > 1:
            raise UnsupportedError(f"the checkpoint has both '{found[0]}' and '{found[1]}'; leave one of them out")
        name = found[0] if found else None
        if name is None:
            if anatomy.tied and parameter == anatomy.unembedding_weight:
                continue
            raise UnsupportedError(
                f"the checkpoint has no tensor '{parameter}', which {anatomy.architecture} has; "
                "its layout on disk is not understood"
            )
        if tuple(tensors[name]) != shape:
            raise UsageError(
                f"tensor '{name}' is {tuple(tensors[name])} on disk, but {shape} by config.json; "
                "the two do not belong together"
            )
        names[parameter] = name
    return DiskNames(names, tuple(sorted(set(tensors) - set(names.values()))))
