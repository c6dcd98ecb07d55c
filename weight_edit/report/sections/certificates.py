"""What is certain of a checkpoint: what its verification looked at, in plain words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.report.numbers import counted, small
from weight_edit.report.run_record import RunRecord
from weight_edit.report.values import at, entries, number, text, whole

HOLDS, FAILS, OPEN = "holds", "fails", "not shown"


@dataclass(frozen=True)
class Certificate:
    """A property of the checkpoint that was checked.

    Attributes:
        state: `HOLDS`, `FAILS` or `OPEN`.
        title: the property in a few words.
        words: what was looked at, with its figure.
    """

    state: str
    title: str
    words: str


def certificates(record: RunRecord) -> list[Certificate]:
    """What was checked of the checkpoint, in plain words."""
    found = record.verification
    if not found:
        return []
    said = [_complete(found), _only_these(found), _like_hooks(found)]
    return [each for each in said if each is not None]


def _state(found: Mapping[str, Any], *figures: tuple[str, str]) -> str:
    """Whether figures lie below what is allowed of them, in each dtype that the models were run in.

    Of a record without the bounds, what its verification says counts for them, but no failure: it may be of another
    check.

    Args:
        figures: each figure's place in the results of a dtype, and its bound's place in what is allowed.
    """
    known = [
        (number(at(precise, figure)), number(at(precise, f"allowed.{bound}")))
        for precise in entries(found.get("by_dtype")).values()
        for figure, bound in figures
    ]
    below = [None if value is None or most is None else value < most for value, most in known]
    if False in below:
        return FAILS
    return HOLDS if found.get("passed") is True or (below and None not in below) else OPEN


def _complete(found: Mapping[str, Any]) -> Certificate:
    leak, storage = number(found.get("leak")), text(found.get("storage_dtype"), 40)
    if leak is None:
        return Certificate(OPEN, "Complete?", "The models were not run, so what is left of the direction is not known.")
    precise = at(found, "by_dtype.float32")
    before, allowed = number(at(precise, "leak_before")), number(at(precise, "allowed.leak"))
    beside = [f"{small(value)} {words}" for value, words in ((before, "in the base"), (allowed, "allowed")) if value]
    where = f"{small(leak)} of the residual stream lies along the direction, at most, over all layers"
    if found.get("complete") is False:
        base = f" ({beside[0]})" if before else ""
        return Certificate(OPEN, "Not complete, by intention", f"The edit is partial: {where}{base}.")
    where += f" ({'; '.join(beside)})" if beside else ""
    state = _state(found, ("leak", "leak")) if found.get("complete") is True else OPEN
    if state == HOLDS:
        rounding = f"the rounding of {storage}" if storage else "rounding"
        return Certificate(HOLDS, "Complete", f"Nothing but {rounding} is left of the direction: {where}.")
    if state == OPEN:
        unknown = "Whether rounding alone explains what is left is not recorded"
        return Certificate(OPEN, "Complete?", f"{unknown}: {where}.")
    # The bound that is broken may be that of the dtype in which the model is stored.
    worst = [
        f"{small(value)} in {text(dtype, 40) or '?'}, {small(most)} allowed"
        for dtype, each in entries(found.get("by_dtype")).items()
        if (value := number(at(each, "leak"))) is not None
        and (most := number(at(each, "allowed.leak"))) is not None
        and not value < most
    ]
    return Certificate(
        FAILS,
        "Not complete",
        f"More of the residual stream lies along the direction than rounding explains: {'; '.join(worst)}.",
    )


def _only_these(found: Mapping[str, Any]) -> Certificate:
    counts = {
        key: whole(at(found, f"integrity_report.{key}")) for key in ("tensors_edited", "tensors_equal", "files_equal")
    }
    edited, equal, files = counts.values()
    if found.get("integrity") is False:
        return Certificate(FAILS, "More than the edit changed", "Not everything else is the base's, byte for byte.")
    if found.get("integrity") is not True:
        return Certificate(OPEN, "Only these tensors?", "Whether anything else changed is not recorded.")
    if edited is None or equal is None:
        return Certificate(HOLDS, "Only these tensors changed", "Everything else is the base's, byte for byte.")
    others = counted(equal, "other tensor") + ("" if files is None else f" and {counted(files, 'file')}")
    return Certificate(HOLDS, f"Only {counted(edited, 'tensor')} changed", f"{others} are the base's, byte for byte.")


def _like_hooks(found: Mapping[str, Any]) -> Certificate:
    precise = at(found, "by_dtype.float32")
    largest, scale = (number(at(precise, f"hook_against_weights.{key}")) for key in ("largest", "scale"))
    divergence, same = (number(at(precise, f"hook_against_weights.{key}")) for key in ("kl", "argmax"))
    if largest is None:
        return Certificate(OPEN, "Like the hooks?", "The edited weights were not run beside hooks on the base.")
    said = f"logits differ by {small(largest)} at most"
    said += "" if scale is None else f" (the largest is {small(scale)})"
    said += "" if divergence is None else f", KL {small(divergence)}"
    said += "" if same is None else f", the same next token on {100 * same:.4g} % of positions"
    state = _state(found, ("hook_against_weights.largest", "logits"), ("hook_against_weights.kl", "kl"))
    if state == FAILS:
        return Certificate(
            FAILS, "Does not behave like the hooks", f"{said[0].upper()}{said[1:]}: more than is allowed."
        )
    title = "Behaves like the hooks" if state == HOLDS else "Like the hooks?"
    agree = "agree" if state == HOLDS else "were compared"
    return Certificate(state, title, f"Edited weights and hooks on the unedited model {agree}: {said}.")
