"""The entry of a storage format in the table of `formats`: which tensors are of it, and how parameters lie there."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Storage
from weight_edit.errors import UsageError

SmallReader = Callable[[str], bytes]
"""A function from a small tensor's name to its bytes."""


def no_content(name: str) -> bytes:
    """The `SmallReader` of those who have headers alone.

    Raises:
        UsageError: always.
    """
    raise UsageError(f"the content of tensor {printable(name)!r} is needed to know how the weights lie on disk")


@dataclass(frozen=True, eq=False)
class StoredTensors:
    """What the storage of parameters follows from.

    Attributes:
        tensors: all of a checkpoint, by name.
        config: `quantization_config` of config.json; empty where there is none.
        read: for formats that keep a shape in a tensor and not in a header.
    """

    tensors: Mapping[str, TensorInfo]
    config: Mapping[str, Any]
    read: SmallReader = no_content


@dataclass(frozen=True, kw_only=True)
class Format:
    """A way in which quantised parameters lie on disk.

    A parameter `X.weight` has the name that it has in the model, also where no tensor on disk has that name.

    Attributes:
        name: what it is called.
        holds: whether a tensor holds the codes of a parameter in this format, by its header; its name ends as `codes`.
        storage: the storage of a parameter, by its name and the axis of an edit (see `formats.storage_of`).
        codes, parameter: the ending of the name of the tensor with the codes, and what a parameter's name ends with in
            its place: "qweight" and "weight".
        beside: names of the other tensors that a parameter may have, with `{name}` for the parameter's and `{stem}` for
            that without "weight" at its end; those of activations too, that have no meaning without it.
        shape: a parameter's shape as its storage has it; None where it is that of the tensor with the codes.
        transposed: whether the last two axes lie the other way round on disk than in the model.
    """

    name: str
    holds: Callable[[TensorInfo, StoredTensors], bool]
    storage: Callable[[str, StoredTensors, int], Storage]
    codes: str = ""
    parameter: str = ""
    beside: tuple[str, ...] = ()
    shape: Callable[[str, StoredTensors], tuple[int, ...]] | None = None
    transposed: bool = False

    def codes_of(self, name: str) -> str | None:
        """The name of the tensor that would hold a parameter's codes; None for a name that this format has not."""
        return name.removesuffix(self.parameter) + self.codes if name.endswith(self.parameter) else None

    def parameter_in(self, info: TensorInfo, stored: StoredTensors) -> str | None:
        """The name of the parameter whose codes a tensor holds; None if it holds none in this format."""
        if not info.name.endswith(self.codes) or not self.holds(info, stored):
            return None
        return info.name.removesuffix(self.codes) + self.parameter

    def parameters_among(self, stored: StoredTensors, said: str, held: str) -> list[str]:
        """The names of all parameters in this format, which a config declares.

        Args:
            said: what the config says that weights are, for the message.
            held: what a tensor with their codes is.

        Raises:
            UsageError: there is none.
        """
        found = (self.parameter_in(info, stored) for info in stored.tensors.values())
        names = [name for name in found if name is not None]
        if not names:
            raise UsageError(
                f"config.json says that weights are {said}, but none of the {len(stored.tensors)} tensors is {held}; "
                "the two do not belong together"
            )
        return names

    def tensors_of(self, name: str, tensors: Mapping[str, TensorInfo]) -> Iterator[str]:
        """The names of all tensors that belong to a parameter in this format, that with the codes first."""
        codes = self.codes_of(name)
        if codes is not None and codes in tensors:
            yield codes
        for template in self.beside:
            beside = template.format(name=name, stem=name.removesuffix("weight"))
            if beside in tensors:
                yield beside
