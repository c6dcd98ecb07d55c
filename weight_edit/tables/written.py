"""The tables of what was written, and of the checks of it, made of their documents."""

from collections.abc import Mapping
from typing import Any

from weight_edit.tables.rows import listed, named_rows, plain_values
from weight_edit.tables.table import Table

Document = Mapping[str, Any]

_BAKED = {
    "tensors": "tensors edited",
    "complete": "nothing is written along the direction any more",
    "edit_class": "exactness",
    "bytes_total": "size of all files",
    "seconds": "seconds",
}
_PACKED = {
    "size": "size of the pack",
    "files": "files of the result whose digests it has",
    "bytes_result": "size of the result",
    "bytes_base": "size of the base",
    "reversible": "gives the base back",
    "bytes_reversal": "of the pack, for giving it back",
}
_UNDONE = {
    "files": "files that are the base's by SHA-256",
    "bytes_total": "size of the base",
    "bytes_restored": "of it restored",
    "bytes_pack": "size of the pack",
}
_DRY = {"files": "files that would be the base's by SHA-256", "bytes_restored": "of it would be restored"}


def verification(document: Document) -> list[Table]:
    """The checks of an edited checkpoint: what was held to what the edit claims, and what was only measured."""
    if "passed" not in document:
        return []
    problems = list(document.get("problems", ()))
    found: list[tuple[str, Any]] = [("edit", step) for step in (document.get("edit") or {}).get("steps", ())]
    failed = f"no: {len(problems)} failed" if problems else "no"
    found.append(("every check of what this edit claims has passed", True if document["passed"] else failed))
    if document.get("integrity") is not None:
        found.append(("only what was to be edited has changed", document["integrity"]))
    if document.get("complete") is not None:
        claimed = True if document["complete"] else "no, by intention"
        found.append(("the edit claims to leave nothing of the direction", claimed))
    judged = "" if document.get("complete", True) else ", not judged"
    words = {
        "leak": f"left in the stream, share of its length, at most{judged}",
        "left_in_weights": f"left in the edited weights, share, at most{judged}",
        "logit_difference": "largest difference of logits between hooks and weights",
    }
    found += [(said, document[key]) for key, said in words.items() if document.get(key) is not None]
    if document.get("weights_only"):
        found.append(("left in the stream, hooks against weights", "not measured: no model was run"))
    recorded = document.get("recorded_not_measured")
    found += [("recorded with it, not checked here", listed(recorded))] if recorded else []
    found += [("problem", problem) for problem in problems]
    note = (
        "These are figures of completeness, not of effect: whether the behaviour changed, an evaluation beside the "
        "base measures."
    )
    return [named_rows("Checks of the edited checkpoint", found, note)]


def bake(document: Document) -> list[Table]:
    """What was baked, or would be."""
    title = "What would be written; nothing was" if document.get("dry_run") else "What was written"
    shown = {key: value for key, value in document.items() if key != "dry_run"}
    return [named_rows(title, plain_values(shown, _BAKED))]


def pack(document: Document) -> list[Table]:
    """What a pack holds."""
    missing = [("base", "not at hand, so that its digests are not in the pack")] if not document.get("base") else []
    return [named_rows("The pack", [*plain_values(document, _PACKED), *missing])]


def apply(document: Document) -> list[Table]:
    """What was made of which base, and whether it is what was published."""
    published = {True: "yes", False: "no: another result", None: "not known, nothing was written"}
    said: list[tuple[str, Any]] = [
        ("path", document.get("path")),
        ("every file has the published SHA-256", published[document.get("published")]),
    ]
    same = {True: "its own", False: "another one", None: "not known yet whether its own"}
    for each in document.get("packs", ()):
        edited = each["edited"]
        said += [
            ("pack", each["pack"]),
            ("base", f"{each['base']}: {same[each['base_is_same']]} ({each['told_by']})"),
            ("tensors edited", len(edited["tensors"])),
        ]
        said += [("files that are not the base's", listed(each["differing"]))] if each["differing"] else []
    return [named_rows("A dry run; nothing was written" if document.get("dry_run") else "What was applied", said)]


def undo(document: Document) -> list[Table]:
    """What was given back."""
    dry = bool(document.get("dry_run"))
    shown = {key: value for key, value in document.items() if key != "dry_run"}
    title = "What would be given back; nothing was written" if dry else "What was given back"
    return [named_rows(title, plain_values(shown, {**_UNDONE, **(_DRY if dry else {})}))]


def push(document: Document) -> list[Table]:
    """What was sent, and the checks before it."""
    shown = {key: value for key, value in document.items() if key != "verification"}
    title = "What was sent" if document.get("url") else "What would be sent; nothing was"
    sent = named_rows(title, plain_values(shown, {"bytes": "size of them", "sent": "files that were changed"}))
    return [sent, *verification(document.get("verification") or {})]
