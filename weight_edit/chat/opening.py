"""A chat opened by names: what is read, loaded and measured, in the order in which mistakes are cheapest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from weight_edit.chat.edit import ChatEdit
from weight_edit.chat.sampling import Sampling
from weight_edit.chat.session import ChatSession
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.directions.file import read_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.organism.embedded import EMBEDDED
from weight_edit.plan.plan import parse_layers
from weight_edit.plan.step import EditStep
from weight_edit.runtime.loading import Model
from weight_edit.runtime.options import FormatOptions, LoadOptions


def open_chat(
    model: str | Path,
    *,
    against: str | Path | None = None,
    directions: str | Path | DirectionRows | None = None,
    edit_step: EditStep | None = None,
    orthonormalize: bool = False,
    kind: str = "ablate",
    strength: float = 1.0,
    layers: str | None = None,
    at: Sequence[int] = (),
    edit_options: Mapping[str, Any] | None = None,
    alone: bool = False,
    measure_at: int | None = None,
    load_options: LoadOptions | None = None,
    format_options: FormatOptions | None = None,
    sampling: Sampling | None = None,
    memory: bool | None = None,
) -> ChatSession:
    """A chat with a model: alone, beside a base, or beside itself under an edit.

    Args:
        model: a Hub id, a folder, a GGUF file or an embedded model.
        against: a base, loaded beside it.
        directions: of the edit to be tried, a file or rows. Beside a base they are only measured along; those that the
            model's own folder names take their place there.
        edit_step: the edit to be tried, in place of directions and what is said of their edit; `strength` multiplies
            its own.
        orthonormalize: make the file's rows orthonormal first.
        kind, strength, layers, at, edit_options: of the edit, see `EditStep`; layers as text such as "4-12".
        alone: show the model under the edit without the unedited one beside it.
        measure_at: the block at whose input the stream is measured; where the directions were found when None.
        memory: whether earlier turns are part of what is asked; None is yes, but for the embedded models and what was
            made of them, which know single questions alone.

    Raises:
        UsageError, UnsupportedError: as `ChatSession`, `load` and `read_rows`.
    """
    loads, formats = load_options or LoadOptions(), format_options or FormatOptions()
    rows = directions
    if isinstance(rows, str | Path):
        rows = read_rows(rows, orthonormalize=orthonormalize)
    said = (kind, layers, tuple(at), dict(edit_options or {})) != ("ablate", None, (), {})
    edit = None
    if edit_step is not None:
        if rows is not None or against is not None or said:
            raise UsageError("a recipe's edit is whole: its strength alone can be given beside it")
        edit = ChatEdit.of_step(edit_step)
        edit = replace(edit, strength=strength * edit.strength)
        _ = edit.step
        rows = edit_step.directions
    elif rows is not None and against is None:
        edit = ChatEdit(
            directions=rows,
            kind=kind,
            strength=strength,
            layers=parse_layers(layers),
            at=tuple(at),
            options=dict(edit_options or {}),
        )
        _ = edit.step
    elif said or strength != 1:
        raise UsageError(
            "there is no edit under trial that this could be said of: give `directions`, and leave `against` out",
            option=("directions", "against"),
        )
    elif alone:
        raise UsageError("`alone` shows an edit under trial alone; give `directions`", option=("alone", "directions"))
    if formats != FormatOptions():
        # Before gigabytes are read.
        loads.chat_format(model, formats)
    steps, origin = _edit_of(model) if loads.adapter is None else ((), None)
    base = None if against is None else loads.of_base().load(against)
    found = loads.load(model)
    if rows is None and steps and _fits(steps[0].directions, [found, *([] if base is None else [base])]):
        rows = steps[0].directions
    if memory is None:
        memory = not any(str(name) in EMBEDDED for name in (model, against, origin))
    return ChatSession(
        found,
        against=base,
        edit=edit,
        alone=alone,
        along=rows,
        measure_at=measure_at,
        options=formats,
        sampling=sampling,
        memory=memory,
    )


def _edit_of(model: str | Path) -> tuple[tuple[EditStep, ...], str | None]:
    """The steps of the edit that a local folder's manifest names, and the base's name; nothing where it has none."""
    folder = Path(model)
    if str(model) in EMBEDDED or not folder.is_dir():
        return (), None
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return (), None
        return tuple(EditStep.from_dict(entry) for entry in manifest["edit"]["steps"]), str(manifest["source"]["model"])
    except (UsageError, KeyError, TypeError, ValueError):
        # It can be talked to all the same; `verify` says what is wrong with it.
        return (), None


def _fits(rows: DirectionRows, models: Sequence[Model]) -> bool:
    return all(rows.rows.shape[1] == each.anatomy.d_model for each in models)
