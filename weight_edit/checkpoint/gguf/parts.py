"""The files of a GGUF model: one, or several that its name counts."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from weight_edit.checkpoint.files import list_files, locate, printable
from weight_edit.checkpoint.gguf.header import GgufHeader, is_gguf, no_architecture
from weight_edit.errors import UnsupportedError, UsageError

_CONFIG = "config.json"
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE | re.DOTALL)
_MOST_PARTS = 1000
_MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class GgufFiles:
    """The place of a GGUF model.

    Attributes:
        root: a folder, resolved.
        parts: its files in there, in their order.
        alone: whether a file was given, and not the folder: then nothing else in there belongs to the model.
    """

    root: Path
    parts: tuple[str, ...]
    alone: bool

    @property
    def first(self) -> Path:
        """The first file, which has all that is said of the model."""
        return self.root / self.parts[0]


def gguf_files(path: Path) -> GgufFiles | None:
    """The GGUF model that is meant by a file or a folder; None for a folder with config.json, or without GGUF files.

    Args:
        path: a `.gguf` file, any of its parts, or a folder.

    Raises:
        UsageError: parts that are missing, links out of the folder, or a folder with several models.
    """
    if path.is_dir():
        if (path / _CONFIG).is_file():
            return None
        root = path.resolve()
        parts = only_model(list_files(root)[0], str(root))
        return None if parts is None else GgufFiles(root=root, parts=parts, alone=False)
    if not is_gguf(path.name) or not path.exists():
        return None
    root, name = path.parent.resolve(), path.name
    if (root / name).is_symlink():
        root, name = _followed(root, name)
    parts = _parts_of(name)
    for number, part in enumerate(parts, 1):
        if not os.path.lexists(root / part):
            raise UsageError(
                f"{printable(str(root / part))} is missing, part {number} of {len(parts)}; fetch it into the folder of "
                "the others"
            )
    return GgufFiles(root=root, parts=parts, alone=True)


def only_model(files: Collection[str], where: str) -> tuple[str, ...] | None:
    """The files of the only GGUF model among a folder's files; None where there is none.

    Raises:
        UsageError: there are several, or parts of one are missing.
    """
    models = sorted({_parts_of(name) for name in files if is_gguf(name)})
    if len(models) > 1:
        names = ", ".join(printable(parts[0], 80) for parts in models[:2])
        more = f" and {len(models) - 2} more" if len(models) > 2 else ""
        raise UsageError(f"{printable(where)} has several GGUF models ({names}{more}); give the file itself")
    for part in models[0] if models else ():
        if part not in files:
            raise UsageError(f"{printable(where)} lacks {printable(part)}, a part of its GGUF model; fetch it, too")
    return models[0] if models else None


def merged(headers: Mapping[str, GgufHeader]) -> GgufHeader:
    """The header of a whole model, from those of its files in their order.

    Raises:
        UsageError: a file that is no part of the model, or another one than its name says; tensors that are missing or
            there twice; a model without tensors or architecture.
        UnsupportedError: a file that holds no model: an adapter, a projector.
    """
    first = next(iter(headers))
    _check_parts(headers)
    kind = headers[first].values.get("general.type", _MODEL)
    if kind != _MODEL:
        raise UnsupportedError(
            f"{printable(first)} holds no model but {printable(repr(kind), 40)}, by its general.type; give the model's"
        )
    if not headers[first].architecture:
        raise no_architecture(first)
    tensors = tuple(info for header in headers.values() for info in header.tensors)
    if not tensors:
        raise UsageError(f"{printable(first)}: has no tensors; give the model's own file")
    seen: dict[str, str] = {}
    for info in tensors:
        if info.name in seen:
            raise UsageError(
                f"{printable(info.shard)}: tensor {printable(info.name)!r}: it is in {printable(seen[info.name])} "
                "already; fetch the files again"
            )
        seen[info.name] = info.shard
    claimed = headers[first].values.get("split.tensors.count")
    if len(headers) > 1 and claimed is not None and claimed != len(tensors):
        raise UsageError(
            f"{printable(first)}: it claims {printable(str(claimed), 40)} tensors in all parts, and there are "
            f"{len(tensors)}; fetch the files again"
        )
    values, lengths = dict(headers[first].values), dict(headers[first].lengths)
    return GgufHeader(
        version=headers[first].version,
        architecture=headers[first].architecture,
        context_length=headers[first].context_length,
        templates=headers[first].templates,
        parts=len(headers),
        values=values,
        lengths=lengths,
        tensors=tensors,
        data_start=headers[first].data_start,
    )


def _check_parts(headers: Mapping[str, GgufHeader]) -> None:
    """Refuse files whose headers do not say of themselves what their names do."""
    for number, (name, header) in enumerate(headers.items()):
        there = printable(name)
        if len(headers) == 1:
            if header.parts > 1:
                raise UsageError(
                    f"{there} is one of {header.parts} parts; give it the name that parts have "
                    f"(NAME-00001-of-{header.parts:05}{Path(name).suffix}), beside the others"
                )
            continue
        said = {key: header.values.get(f"split.{key}") for key in ("no", "count")}
        for key, wanted in (("no", number), ("count", len(headers))):
            if type(said[key]) is not int or said[key] != wanted:
                found = printable(str(said[key]), 40)
                raise UsageError(f"{there}: split.{key} is {found} where its name says {wanted}; fetch the file again")


def _parts_of(name: str) -> tuple[str, ...]:
    """The names of all parts of the model that a file belongs to."""
    found = _PART.fullmatch(name)
    if found is None:
        return (name,)
    stem, number, count, suffix = found[1], int(found[2]), int(found[3]), found[4]
    if not 1 <= number <= count or count > _MOST_PARTS:
        raise UsageError(f"{printable(name)}: there is no part {number} of {count}; name the file as it was published")
    return tuple(f"{stem}-{each:05}-of-{count:05}{suffix}" for each in range(1, count + 1))


def _followed(root: Path, name: str) -> tuple[Path, str]:
    """Where a link to a file leads: left as it is inside of its folder and in a cache of the Hub."""
    try:
        locate(root, name)
    except UsageError:
        real = (root / name).resolve()
        if not real.is_file() or not is_gguf(real.name):
            raise
        return real.parent, real.name
    return root, name
