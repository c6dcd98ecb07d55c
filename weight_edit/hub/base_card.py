"""The base's part of a model card: its Hub id, licence, languages, and usage."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import read_json
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UsageError
from weight_edit.hub.source import Source
from weight_edit.utils.bounded_yaml import parse_yaml

CARD = "README.md"

_TEXTS = ("license", "license_name", "license_link", "pipeline_tag", "library_name")
_LISTS = ("language", "tags")
"""Keys with lists that stay true of the edited model, unlike figures and evaluations."""

_LONGEST = 200
_MOST = 30
# Said of one repository by the Hub or by tools, and not of the model.
_OWN_TAGS = re.compile(r"(base_model|license|region|dataset|doi|arxiv):|.*_compatible$|gguf|mlx|onnx|exl2|awq|gptq")
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def inherited(source: Source, checkpoint: Checkpoint, base_model: str | None = None) -> dict[str, Any]:
    """The base's part of the card, as the manifest records it.

    Args:
        source, checkpoint: the base.
        base_model: its id on the Hub, as the user says it.

    Raises:
        UsageError: `base_model` is no id.
    """
    files = checkpoint.other_files
    text = bytes(checkpoint.read_file(CARD)).decode("utf-8", "replace") if CARD in files else None
    name, how = _base_model(source, checkpoint.config, text, base_model)
    return {
        "base_model": name,
        "base_model_from": how,
        "metadata": kept_metadata(text),
        "chat_template": has_template(checkpoint),
    }


def check_id(name: str) -> str:
    """The name, if it is a Hub id of the form owner/name.

    Raises:
        UsageError: something else.
    """
    if not _ID.fullmatch(name):
        raise UsageError(f"`base_model` '{name}' is no Hub id; write owner/name", option="base_model")
    return name


def kept_metadata(card: str | None) -> dict[str, Any]:
    """The keys of the base's card that an edited model's card keeps: texts and lists of texts."""
    found = front_matter(card)
    kept: dict[str, Any] = {}
    for key in _TEXTS:
        value = found.get(key)
        # More than one licence is a list on the Hub.
        if isinstance(value, list) and key == "license":
            kept[key] = _texts(value)
        elif (text := _text(value)) is not None:
            kept[key] = text
    for key in _LISTS:
        value = found.get(key)
        texts = _texts(value if isinstance(value, list) else [value])
        if key == "tags":
            texts = [text for text in texts if not _OWN_TAGS.match(text)]
        if texts:
            kept[key] = texts
    return {key: value for key, value in kept.items() if value}


def front_matter(card: str | None) -> dict[str, Any]:
    """The YAML front matter of a card; empty if there is none or it is malformed."""
    if card is None or not card.startswith("---"):
        return {}
    head = card[3:].split("\n---", 1)[0]
    try:
        found = parse_yaml(head)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _base_model(
    source: Source, config: Mapping[str, Any], card: str | None, said: str | None
) -> tuple[str | None, str | None]:
    """The base's Hub id and its source ("option", "hub", ...); None where unknown."""
    if said is not None:
        return check_id(said), "option"
    if source.on_hub:
        return source.name, "hub"
    folder = source.path.parent if source.path.is_file() else source.path
    kept = re.fullmatch(r"models--(.+?)--(.+)", folder.parent.parent.name)
    if kept is not None and folder.parent.name == "snapshots":
        return f"{kept[1]}/{kept[2]}", "cache"
    name = config.get("_name_or_path")
    if not isinstance(name, str) or not _ID.fullmatch(name) or Path(name).exists():
        return None, None
    # By its form it may be a folder of whoever saved the model. The folder's name or the base's card must agree.
    agreed = name.rpartition("/")[2] == source.path.name or (card is not None and name in card)
    return (name, "config") if agreed else (None, None)


def has_template(checkpoint: Checkpoint) -> bool:
    """Whether a model's files include a chat template."""
    files = checkpoint.other_files
    if checkpoint.gguf is not None and checkpoint.gguf.templates:
        return True
    if any(name in files for name in ("chat_template.jinja", "chat_template.json")):
        return True
    name = "tokenizer_config.json"
    if name not in files:
        return False
    try:
        found = read_json(bytes(checkpoint.read_file(name)), name, unique_keys=False)
    except UsageError:
        return False
    return isinstance(found, dict) and bool(found.get("chat_template"))


def _text(value: object) -> str | None:
    # YAML reads `language: no` as a truth value, which is Norwegian nowhere.
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST or not value.isprintable():
        return None
    return value.strip()


def _texts(values: list[Any]) -> list[str]:
    found = (_text(value) for value in values[:_MOST])
    return list(dict.fromkeys(text for text in found if text is not None))
