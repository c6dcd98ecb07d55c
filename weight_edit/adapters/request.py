"""What an adapter is asked to be, and what was made of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.adapters.truncation import Truncation, total
from weight_edit.baking.prepare import PreparedEdit
from weight_edit.hub.source import Source
from weight_edit.plan.step import EditStep
from weight_edit.utils.progress import bar


@dataclass(frozen=True, kw_only=True)
class AdapterRequest:
    """An adapter to be written; see `adapters.adapter.adapter`."""

    source: Source
    steps: tuple[EditStep, ...]
    embeddings: str
    projector: str
    rank: int | None
    strengths: tuple[float, ...]
    base_model: str | None
    trust_remote_code: bool


@dataclass(frozen=True, kw_only=True)
class MadeAdapter:
    """The files of an adapter, in their folder.

    Attributes:
        files: their names.
        modules: what is adapted.
        rank: of the adapter.
        summary: the manifest's account.
        truncation: as `AdapterResult` has it.
        whole: modules whose weights are stored whole.
        notes: sentences.
    """

    files: tuple[str, ...]
    modules: tuple[str, ...]
    rank: int
    summary: dict[str, Any]
    truncation: Mapping[str, Any] | None
    whole: tuple[str, ...]
    notes: tuple[str, ...]


def truncation_of(losses: Iterable[tuple[str, Truncation | None]]) -> dict[str, Any] | None:
    """What a smaller rank loses, over all and of each module; None where nothing is lost."""
    known = {name: loss for name, loss in losses if loss is not None}
    if not known:
        return None
    return {**total(known.values()).to_dict(), "modules": {name: loss.to_dict() for name, loss in known.items()}}


def made_adapter(
    baking: PreparedEdit,
    request: AdapterRequest,
    folder: Path,
    *,
    file_format: str,
    rank: int,
    modules: Sequence[str],
    edit_class: str,
    truncation: Mapping[str, Any] | None,
    whole: Sequence[str] = (),
    notes: Sequence[str],
) -> MadeAdapter:
    """The adapter whose files were written into a folder, with the manifest's account; its notes are said."""
    with bar("adapter", 0) as shown:
        for note in notes:
            shown.say(f"note: {note}")
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    summary = {**baking.summary(), "kind": "adapter", "notes": list(notes), "card": baking.card(request.base_model)}
    summary["edit"]["class"] = edit_class
    summary["adapter"] = {
        "format": file_format,
        "files": list(files),
        "rank": rank,
        **({"strengths": list(request.strengths)} if request.strengths else {}),
        **({"truncation": dict(truncation)} if truncation else {}),
    }
    return MadeAdapter(
        files=files,
        modules=tuple(modules),
        rank=rank,
        summary=summary,
        truncation=truncation,
        whole=tuple(whole),
        notes=tuple(notes),
    )


def truncation_note(truncation: Mapping[str, Any] | None, rank: int) -> list[str]:
    """A sentence on what a smaller rank loses; none where nothing is lost."""
    if truncation is None:
        return []
    worst = max(truncation["modules"], key=lambda name: truncation["modules"][name]["error"])
    return [
        f"cut to rank {rank}: {truncation['error']:.1%} of the change is not in the adapter (at most "
        f"{truncation['modules'][worst]['error']:.1%}, in '{worst}'), {truncation['kept']:.1%} of the edit is kept, "
        f"and {truncation['left']:.2%} is left along the directions"
    ]
