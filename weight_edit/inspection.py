"""Look at a model without loading its weights: its anatomy, its tensors on disk, and the proof on a narrow copy."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weight_edit.anatomy import Anatomy
from weight_edit.anatomy.disk import DiskNames, names_on_disk
from weight_edit.anatomy.proven import proven_anatomy
from weight_edit.anatomy.record import Proof
from weight_edit.anatomy.stored import Stored
from weight_edit.checkpoint.quantized.formats import BLOCKS
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.runtime.sources import resolve


@dataclass(frozen=True)
class Inspection:
    """What a model is made of, as far as edits are concerned.

    Attributes:
        name: what the user called it.
        anatomy: writers, readers, blocks.
        disk: names on disk, and tensors that no parameter accounts for.
        tensors: name on disk to (dtype, shape).
        proof: of a full ablation on a narrow copy.
    """

    name: str
    anatomy: Anatomy
    disk: DiskNames
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    proof: Proof

    def numbers(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of what is stored under a name of `disk`: for MXFP4 those of its blocks."""
        return self.tensors[name] if name in self.tensors else self.tensors[name + BLOCKS]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        anatomy = {key: value for key, value in asdict(self.anatomy).items() if key != "shapes"}
        return {
            "model": self.name,
            "supported": True,
            "anatomy": anatomy,
            "names_on_disk": {name: self._on_disk(name) for name in self.disk.layout.parameters},
            "extra_tensors": list(self.disk.extra),
            "tensors": {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in self.tensors.items()},
            "proof": asdict(self.proof),
        }

    def _on_disk(self, parameter: str) -> str | dict[str, Any]:
        """Its tensor's name where that is all there is to say, as it mostly is; else names and axes."""
        (first, *more) = self.disk.layout.parameters[parameter]
        if first.count == 1 and not more and first.axes == tuple(range(len(first.axes))):
            return first.head
        how = self.disk.layout.how.get(parameter)
        return {"tensors": [asdict(run) for run in (first, *more)], "read_with": how}


def inspect(
    model: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> Inspection:
    """Find a model's anatomy from its config and the headers of its shards.

    Raises:
        UsageError: no such model.
        UnsupportedError: with the module that is not understood.
    """
    source = resolve(model, revision=revision, token=token)
    checkpoint = Checkpoint.open(source.path)
    proven = proven_anatomy(
        source.path, Stored.of(checkpoint.tensors), name=source.name, trust_remote_code=trust_remote_code
    )
    disk = names_on_disk(proven.anatomy, proven.layout)
    tensors = {name: (info.dtype, tuple(info.shape)) for name, info in checkpoint.tensors.items()}
    return Inspection(source.name, proven.anatomy, disk, tensors, proven.proof)
