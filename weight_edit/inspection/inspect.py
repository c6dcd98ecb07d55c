"""The inspection of a model without its weights: anatomy, tensors on disk, and the proof."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from weight_edit.anatomy.disk.layout import Layout
from weight_edit.anatomy.disk.mtp import mtp_tensors, mtp_writers
from weight_edit.anatomy.disk.names import DiskNames, check_nothing_left_out, names_on_disk
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.disk.ties import as_loaded
from weight_edit.anatomy.parts import Anatomy, Writer
from weight_edit.checkpoint.quantized.formats import codes_among, quantised_names, storage_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.refused import check_format
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.errors import UnsupportedError
from weight_edit.hub.headers import with_headers
from weight_edit.hub.source import Named
from weight_edit.inspection.gains import Gains, gains_of
from weight_edit.proofs.proven import proven_anatomy
from weight_edit.proofs.record import AblationProof
from weight_edit.tables.shown import Shown
from weight_edit.utils.name_patterns import patterns

Tensors = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class Inspection(Shown):
    """A model's anatomy, its tensors on disk, and the proof on a narrow copy.

    Attributes:
        name: what the user called it.
        anatomy: writers, readers, blocks.
        disk: names on disk, and tensors that no parameter accounts for; None where there are no weights yet.
        places: parameter that an edit changes -> the tensors that hold it, each with the axis of the outputs on disk.
        tensors: name on disk to (dtype, shape).
        mtp: tensors of multi-token-prediction layers, which transformers does not load.
        mtp_places: those of them that write, each with the axis of the outputs; None where they are not understood.
        quantised: the format of quantised weights, and how many tensors have it; None where there are none.
        proof: of a full ablation on a narrow copy.
        gains: of the norms behind writers; None where there are none, or no weights yet.
    """

    name: str
    anatomy: Anatomy
    disk: DiskNames | None
    places: dict[str, tuple[tuple[str, int], ...]]
    tensors: Tensors
    mtp: tuple[str, ...]
    mtp_places: tuple[tuple[str, int], ...] | None
    quantised: str | None
    proof: AblationProof
    gains: Gains | None = None

    def __repr__(self) -> str:
        stored = f"{len(self.tensors)} tensors on disk" if self.disk is not None else "no weights yet"
        return f"Inspection({self.name!r}, {self.anatomy!r}, {stored})"

    def numbers(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of a name of `disk`; of a quantised parameter, those of its codes."""
        return self.tensors[name if name in self.tensors else codes_among(name, self.tensors)]

    @property
    def extra(self) -> list[tuple[str, int, str]]:
        """(name pattern, count, description) of the tensors that no parameter accounts for."""
        if self.disk is None:
            return []
        mtp = set(self.mtp)
        layers = Counter(self._layer(name) for name in self.mtp)
        what = "multi-token prediction, which transformers does not load"
        rest = patterns(name for name in self.disk.extra if name not in mtp)
        found = [(f"{layer}.*", count, what) for layer, count in layers.items()]
        return found + [(pattern, count, "no parameter takes this") for pattern, count in rest]

    def _layer(self, name: str) -> str:
        """The common prefix of an MTP layer's tensors, up to a block number past the last."""
        path = self.anatomy.blocks[0].module.rpartition(".")[0] + "."
        number = name.removeprefix(path).partition(".")[0] if name.startswith(path) else ""
        return path + number if number else name.partition(".")[0]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        anatomy = {key: value for key, value in asdict(self.anatomy).items() if key != "shapes"}
        disk = self.disk
        return {
            "model": self.name,
            "supported": True,
            "anatomy": anatomy,
            "weights": disk is not None,
            "quantised": self.quantised,
            "names_on_disk": {}
            if disk is None
            else {name: _on_disk(disk.layout, name) for name in disk.layout.parameters},
            "edited": {
                parameter: [{"tensor": name, "axis": axis} for name, axis in places]
                for parameter, places in self.places.items()
            },
            "extra_tensors": [] if disk is None else list(disk.extra),
            "mtp": list(self.mtp),
            "mtp_writers": self.mtp_places and [{"tensor": name, "axis": axis} for name, axis in self.mtp_places],
            "extra_patterns": [{"names": name, "count": count, "what": what} for name, count, what in self.extra],
            "tensors": {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in self.tensors.items()},
            "gains": None if self.gains is None else self.gains.to_dict(),
            "proof": asdict(self.proof),
        }


def _on_disk(layout: Layout, parameter: str) -> str | dict[str, Any]:
    """The tensor's name if it equals the parameter, else names and axes."""
    (first, *more) = layout.parameters[parameter]
    if first.count == 1 and not more and first.axes == tuple(range(len(first.axes))):
        return first.head
    return {"tensors": [asdict(run) for run in (first, *more)], "read_with": layout.how.get(parameter)}


def inspect(
    model: Named,
    *,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> Inspection:
    """Inspect a model, from its config and the headers of its shards alone.

    Of a Hub model, config.json, the index and the headers are read, and of its weights only gains of norms behind
    writers, where there are such norms. A local folder may hold a config.json and no weights yet.

    Raises:
        UsageError: no such model.
        UnsupportedError: with the module that is not understood, or the writer whose format is not edited.
    """
    with with_headers(model, revision=revision, token=token) as (source, checkpoint):
        stored = Stored({}) if checkpoint is None else _stored(checkpoint)
        proven = proven_anatomy(source.path, stored, name=source.name, trust_remote_code=trust_remote_code)
        anatomy = proven.anatomy
        if checkpoint is None:
            return Inspection(
                name=source.name,
                anatomy=anatomy,
                disk=None,
                places={},
                tensors={},
                mtp=(),
                mtp_places=(),
                quantised=None,
                proof=proven.proof,
            )
        disk = names_on_disk(anatomy, proven.layout)
        anatomy = as_loaded(anatomy, checkpoint, disk, whole=not checkpoint.comes_and_goes)
        mtp = mtp_tensors(anatomy, disk)
        check_nothing_left_out(anatomy, disk, mtp, stored.shapes)
        tensors = {name: (info.dtype, tuple(info.shape)) for name, info in checkpoint.tensors.items()}
        places = {key: where for writer in anatomy.writers for key, where in _places(disk, writer)}
        _check_storage(checkpoint, places.values())
        beside = _mtp_places(anatomy, disk, stored)
        quantised = _quantised(checkpoint)
        return Inspection(
            name=source.name,
            anatomy=anatomy,
            disk=disk,
            places=places,
            tensors=tensors,
            mtp=mtp,
            mtp_places=beside,
            quantised=quantised,
            proof=proven.proof,
            gains=gains_of(anatomy, disk, checkpoint),
        )


def _stored(checkpoint: Checkpoint) -> Stored:
    check_format(checkpoint.config, checkpoint.tensors)
    return Stored.of(checkpoint.tensors, checkpoint.quantization, checkpoint.content)


def _places(disk: DiskNames, writer: Writer) -> list[tuple[str, tuple[tuple[str, int], ...]]]:
    parameters = [(writer.weight, writer.axis)] + ([(writer.bias, writer.bias_axis)] if writer.bias else [])
    return [(name, tuple(disk.edits_on_disk(name, axis))) for name, axis in parameters]


def _check_storage(checkpoint: Checkpoint, places: Iterable[tuple[tuple[str, int], ...]]) -> None:
    """Raise `UnsupportedError` for a writer whose numbers are stored in a way that `bake` does not write."""
    for name, axis in (place for where in places for place in where):
        storage_of(name, checkpoint.tensors, checkpoint.quantization, axis, checkpoint.content)


def _mtp_places(anatomy: Anatomy, disk: DiskNames, stored: Stored) -> tuple[tuple[str, int], ...] | None:
    try:
        return tuple((writer.tensor, writer.axis) for writer in mtp_writers(anatomy, disk, stored.shapes))
    except UnsupportedError:
        # Only `--mtp edit` needs them.
        return None


def _quantised(checkpoint: Checkpoint) -> str | None:
    if checkpoint.gguf is not None:
        types = [info.dtype for info in checkpoint.tensors.values() if info.dtype not in STORED]
        return f"GGUF ({', '.join(sorted(set(types)))}), {len(types)} tensors" if types else None
    said = checkpoint.quantization
    names = quantised_names(checkpoint.tensors, said)
    return f"{said.get('quant_method') or 'quantised'}, {len(names)} tensors" if names else None
