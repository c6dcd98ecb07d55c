"""The class of an edit: how exact it is, as the manifest has it, and in plain words for card and terminal."""

from collections.abc import Mapping
from types import MappingProxyType

from weight_edit.edits.changes import Addition, StreamMap
from weight_edit.plan.plan import EditPlan

IN_WEIGHTS = "exact in weights"
IN_BIASES = "exact in weights and biases"
DIFFERS = "differs from the hook"

_BEHIND_COMPLETE = (
    f"{DIFFERS} behind norms: what is asked of the stream holds exactly, what else a norm lets pass differs"
)
_BEHIND = f"{DIFFERS} behind norms, which divide by a length that the edit changes"
_AGAIN = (
    f"{DIFFERS} where that acts at every block's input again; exact against hooks on the outputs of the modules that "
    "write to the stream"
)
_LENGTHS = f"{DIFFERS} of an ablation: columns keep their lengths"

_PLAIN: Mapping[str, str] = MappingProxyType(
    {
        IN_BIASES: "the edited weights and biases do exactly what the edit does as a hook on a running model",
        IN_WEIGHTS: "the edited weights do exactly what the edit does as a hook on a running model",
        _BEHIND_COMPLETE: (
            "nothing is left along the directions, exactly; the rest differs a little from a hook's, since norms stand "
            "behind what is edited"
        ),
        _BEHIND: "differs a little from a hook: norms stand behind what is edited, and divide by a length that changes",
        _AGAIN: (
            "every write to the stream is edited once, exactly; a hook at every block's input, as papers have it, "
            "edits the same part again at each block, and gives other answers"
        ),
        _LENGTHS: "the columns of edited weights keep their lengths, which a hook's ablation does not see to",
    }
)
"""A class, or how one begins -> what it means."""


def plain_exactness(edit_class: str) -> str:
    """The meaning of a class in plain words, with its remarks; a class of another version as it is."""
    for begin, words in _PLAIN.items():
        if edit_class == begin or edit_class.startswith(f"{begin};"):
            return words + edit_class.removeprefix(begin)
    return edit_class


def exactness(plan: EditPlan, *, lossy: bool = False) -> str:
    """The class of a plan.

    Args:
        lossy: whether tensors are rounded to a quantised format.
    """
    parts = [_kind(plan), *_remarks(plan)]
    if lossy:
        parts.append("quantised tensors are rounded to their format again")
    return "; ".join(parts)


def _kind(plan: EditPlan) -> str:
    changes = [step.change for step in plan.steps]
    maps = [change for change in changes if isinstance(change, StreamMap)]
    if any(change.keep_norms for change in maps):
        gone = "; nothing is left along the directions" if plan.complete else ""
        return f"{_LENGTHS}{gone}"
    behind = any(edit.writer.norm is not None and edit.map.rank for edit in plan.edits)
    if maps and behind and plan.complete:
        return _BEHIND_COMPLETE
    if maps and behind:
        return _BEHIND
    if maps and not (plan.whole and plan.stream is not None and plan.stream.idempotent):
        return _AGAIN
    biased = any(edit.writer.bias or edit.map.constant is not None for edit in plan.edits)
    adds = any(isinstance(change, Addition) for change in changes)
    return IN_BIASES if biased or adds else IN_WEIGHTS


def _remarks(plan: EditPlan) -> list[str]:
    found = []
    if plan.reflections:
        found.append(f"by a change of basis from block {plan.reflections[0].layer} on")
    if plan.created:
        found.append("a bias is created" if len(plan.created) == 1 else f"{len(plan.created)} biases are created")
    if plan.tied_edit is not None and plan.tied_edit.changes_weight:
        found.append("the unembedding is tied to the embedding and changes with it")
    return found
