"""The class of an edit: how exact it is, in the words of manifest, card and terminal."""

from weight_edit.edits.changes import Addition, StreamMap
from weight_edit.plan.plan import EditPlan

IN_WEIGHTS = "exact in weights"
IN_BIASES = "exact in weights and biases"
DIFFERS = "differs from the hook"


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
        return f"{DIFFERS} of an ablation: columns keep their lengths{gone}"
    behind = any(edit.writer.norm is not None and edit.map.rank for edit in plan.edits)
    if maps and behind and plan.complete:
        return f"{DIFFERS} behind norms: what is asked of the stream holds exactly, what else a norm lets pass differs"
    if maps and behind:
        return f"{DIFFERS} behind norms, which divide by a length that the edit changes"
    if maps and not (plan.whole and plan.stream is not None and plan.stream.idempotent):
        return (
            f"{DIFFERS} where that acts at every block's input again; exact against hooks on the outputs of the "
            "modules that write to the stream"
        )
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
