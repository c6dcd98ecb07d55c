"""The facts about directions that manifests and cards repeat, checked before any writing."""

import json
from collections.abc import Mapping
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.utils.json import check_value
from weight_edit.utils.papers import is_arxiv_id

KEPT = (
    *("method", "layer", "position", "revision", "prompts", "refusal_tokens", "tokens_from", "missed", "papers"),
    "unconfirmed",
)
"""The keys of the directions' metadata that a manifest keeps."""

_LONGEST = 200
_HIGHEST = 1_000_000


def check_facts(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata that a manifest cannot hold or that would break a line of the card.

    Raises:
        UsageError: `method`, `revision`, `missed`, `tokens_from` or `unconfirmed` is no text of one line, `layer` or
            `position` no number of a place, `papers` no list of arXiv ids, or `prompts` or `refusal_tokens` no JSON.
    """
    for name in ("method", "revision", "missed", "tokens_from", "unconfirmed"):
        value = metadata.get(name)
        if value is not None and not _is_line(value):
            raise UsageError(
                f"the directions' metadata: `{name}` must be one printable line of at most {_LONGEST} characters; "
                "find them again"
            )
    layer, position = metadata.get("layer"), metadata.get("position")
    for name, fits, what in (
        ("layer", layer is None or (_is_whole(layer) and layer >= 0), "a layer"),
        ("position", position is None or _is_whole(position) or _is_line(position), "a token"),
    ):
        if not fits:
            raise UsageError(f"the directions' metadata: `{name}` must be the number of {what}; find them again")
    papers = metadata.get("papers")
    if papers is not None and not (isinstance(papers, list) and all(map(is_arxiv_id, papers))):
        raise UsageError("the directions' metadata: `papers` must be a list of arXiv ids; find them again")
    for name in ("prompts", "refusal_tokens", "missed"):
        value = metadata.get(name)
        try:
            check_value(value)
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the directions' metadata: `{name}` is no JSON ({error}); find them again") from error


def _is_line(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _HIGHEST
