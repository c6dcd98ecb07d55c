"""The check of an edited checkpoint's config and index against the base's."""

from collections.abc import Collection, Mapping

from weight_edit.checkpoint.files import printable, read_json
from weight_edit.checkpoint.rewrite.indexes import same_json
from weight_edit.checkpoint.source.checkpoint import CONFIG, Checkpoint
from weight_edit.errors import WeightEditError

_TOTALS = {"total_size", "total_parameters"}


def config_problems(base: Checkpoint, edited: Checkpoint, changed: Collection[str]) -> list[str]:
    """One line for each key of `config.json` that differs and may not.

    Args:
        changed: the top-level keys that may differ; with values, what they must be then (None: not there).
    """
    before, after = base.config, edited.config
    problems = [
        f"{CONFIG}: the key {printable(key)!r} differs from the base's"
        for key in sorted((before.keys() | after.keys()) - set(changed))
        if key not in before or key not in after or not same_json(before[key], after[key])
    ]
    wanted = changed if isinstance(changed, Mapping) else {}
    return problems + [
        f"{CONFIG}: the key {printable(key)!r} is not what the edit makes of it"
        for key, value in sorted(wanted.items())
        if (key in after) != (value is not None) or (value is not None and not same_json(value, after[key]))
    ]


def index_problems(base: Checkpoint, edited: Checkpoint) -> list[str]:
    """One line for each difference of the index other than in its list of tensors.

    The tensors' places are compared shard by shard.
    """
    name = str(edited.index_file)
    if base.index_file != name:
        return [f"{printable(name)}: the base's index is {printable(str(base.index_file))}"]
    try:
        before, after = (read_json(side.read_file(name), name) for side in (base, edited))
    except WeightEditError as error:
        return [f"{printable(name)}: {error}"]
    for index in (before, after):
        index.pop("weight_map")
        index["metadata"] = {key: value for key, value in index.get("metadata", {}).items() if key not in _TOTALS}
    if not same_json(before, after):
        return [f"{printable(name)}: differs from the base's in more than the added tensors"]
    return []
