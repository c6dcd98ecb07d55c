"""The check that the model card is the one its manifest generates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weight_edit.baking.card.card import model_card
from weight_edit.baking.card.card_and_manifest import README
from weight_edit.checkpoint.files import open_regular, printable
from weight_edit.checkpoint.manifest import MANIFEST
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.edits.registry import papers_of
from weight_edit.errors import UsageError
from weight_edit.hub.base_card import has_template, kept_metadata
from weight_edit.version import __version__

_MOST = 4_000_000


def foreign_version(manifest: Mapping[str, Any] | None) -> str | None:
    """The other version of this package that wrote an output, whose card is in words of its own; None if it is ours."""
    version = None if manifest is None else manifest.get("weight_edit")
    return None if version in (None, __version__) else printable(str(version)[:40])


def card_problems(folder: Path, manifest: Mapping[str, Any] | None, base: Checkpoint) -> list[str]:
    """The problems of an output's card, one line each.

    The card must be there and be the one that the manifest gives, unless another version wrote it, and the manifest
    must repeat the base's card rightly.

    Args:
        folder: the output.
        manifest: its own; None where it has none, and then its card is nobody's.
        base: what it was edited from.
    """
    if manifest is None:
        return []
    if not isinstance(manifest.get("card"), Mapping):
        return [f"{MANIFEST}: has no entry 'card', so that {README} cannot be checked; bake again"]
    try:
        wanted = model_card(manifest).encode()
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        return [f"{MANIFEST}: gives no model card ({type(error).__name__}: {printable(str(error))})"]
    card, problems = manifest["card"], []
    if card["metadata"] != kept_metadata(_base_card(base)):
        problems.append(f"{MANIFEST}: the licence and other metadata in 'card' are not those of the base's card")
    if card["chat_template"] is not has_template(base):
        problems.append(f"{MANIFEST}: 'card' does not say rightly whether the base has a chat template")
    if "papers" in card and card["papers"] != papers_of(step["edit"] for step in manifest["edit"]["steps"]):
        problems.append(f"{MANIFEST}: the papers in 'card' are not those of the edit's kinds")
    if set(card) - {"papers"} != {"base_model", "base_model_from", "metadata", "chat_template"}:
        problems.append(f"{MANIFEST}: 'card' has other entries than a card needs")
    if not _named_rightly(card, manifest["source"], base.config):
        problems.append(f"{MANIFEST}: the base's id in 'card' is not that of 'source', or of the base's config.json")
    try:
        with open_regular(folder / README) as file:
            # Unbuffered reads may be short, but of a regular file they are not.
            there = file.read(_MOST)
    except UsageError:
        return [*problems, f"{README}: the model card is missing"]
    if there != wanted and foreign_version(manifest) is None:
        problems.append(f"{README}: is not the model card that {MANIFEST} gives")
    return problems


def _named_rightly(card: Mapping[str, Any], source: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether the base's id agrees with its recorded place: `source`, or the base's config.json.

    An id from an option, or from the name of a folder in the Hub's cache, can be compared with nothing.
    """
    name, how = card["base_model"], card["base_model_from"]
    if how == "hub":
        return source.get("on_hub") is True and name == source["model"]
    if how == "config":
        return bool(name == config.get("_name_or_path"))
    return how is not None or name is None


def _base_card(base: Checkpoint) -> str | None:
    return bytes(base.read_file(README)).decode("utf-8", "replace") if README in base.other_files else None
