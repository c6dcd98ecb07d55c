"""Human labels of recorded answers, in the words of verdicts."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.evaluation.entries import Entry, read_entries
from weight_edit.evaluation.recorded_answers import RecordedAnswer
from weight_edit.evaluation.verdicts import Verdict

LABEL_WORDS: dict[str, Verdict] = {
    **{verdict.value: verdict for verdict in Verdict},
    **dict.fromkeys(("refuse", "refuses", "refusal", "full_refusal", "2_full_refusal"), Verdict.REFUSED),
    **dict.fromkeys(("reject", "rejected", "rejection", "decline", "declined"), Verdict.REFUSED),
    **dict.fromkeys(("answer", "complied", "comply", "complies", "compliance", "compliant"), Verdict.ANSWERED),
    **dict.fromkeys(("full_compliance", "1_full_compliance", "not_refused", "non_refusal"), Verdict.ANSWERED),
    **dict.fromkeys(("partial_refusal", "3_partial_refusal", "partial_compliance"), Verdict.PARTIAL),
    **dict.fromkeys(("deflection", "evasive"), Verdict.DEFLECTED),
}
"""A label's word -> verdict; case, spaces and dashes do not matter. Numbers with words are those of XSTest."""

TRUE_WORDS = ("1", "true", "yes")
FALSE_WORDS = ("0", "false", "no")
"""Labels that say yes or no to a question, which is "is it a refusal?" unless it is said otherwise."""

_OPPOSITE = {Verdict.REFUSED: Verdict.ANSWERED, Verdict.ANSWERED: Verdict.REFUSED}
_OTHER_QUESTION = re.compile(r"jailbr|compl[iy]|success|attack|harm|safe|help|answer", re.IGNORECASE)
_LABEL_KEYS = ("label", "verdict", "final_label", "human", "annotation")


def label_verdict(label: Any, true: Verdict = Verdict.REFUSED) -> Verdict | None:
    """The verdict of a label; None where there is no such word.

    Args:
        true: what 1, true and yes stand for, `refused` or `answered`; 0, false and no stand for the other.
    """
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, str | bool | int):
        return None
    word = re.sub(r"[\s-]+", "_", str(label).strip().lower())
    if word in TRUE_WORDS:
        return true
    return _OPPOSITE[true] if word in FALSE_WORDS else LABEL_WORDS.get(word)


def read_labels(
    labels: str | Path, answers: Sequence[RecordedAnswer], *, limited: bool = False
) -> list[Verdict | None]:
    """The labels of answers, in their order; None for answers without one (null or an empty text).

    Args:
        labels: a key of the answers' entries, or a file with one label for each answer: texts, numbers, or objects
            with the label under `label` or `verdict`, and with the same `prompt` where they have one. Behind it
            `:answered` or `:refused` says what 1, true and yes stand for.
        limited: the answers are the first ones of their file, so that a file may have more labels.

    Raises:
        UsageError: neither key nor file, another number of labels, an unknown label, with its line, no label at all,
            or 1 and 0 under a key that seems to ask for something else than a refusal.
    """
    name, _, asked = str(labels).rpartition(":")
    said = asked in ("refused", "answered") and bool(name)
    if not said:
        name, asked = str(labels), "refused"
    true = Verdict(asked)
    rows = [answer.entry.value for answer in answers]
    if any(isinstance(row, dict) and name in row for row in rows):
        entries = [answer.entry for answer in answers]
        values = [row.get(name) if isinstance(row, dict) else None for row in rows]
    elif Path(name).is_file():
        entries, values = _from_file(Path(name), answers, limited)
    else:
        keys = ", ".join(map(str, rows[0])) if isinstance(rows[0], dict) else "none"
        raise UsageError(
            f"`labels={name}`: the answers have no such key (theirs are: {keys}), and there is no such file",
            option="labels",
        )
    found: list[Verdict | None] = []
    for entry, value in zip(entries, values, strict=True):
        if value is None or (isinstance(value, str) and not value.strip()):
            found.append(None)
            continue
        verdict = label_verdict(value, true)
        if verdict is None:
            raise UsageError(
                f"{entry.where}: the label {str(value)[:40]!r} is not known; write one of {', '.join(Verdict)}, words "
                "such as refusal or compliance, or 1 and 0",
                option="labels",
            )
        found.append(verdict)
    if not any(found):
        raise UsageError(f"`labels={name}`: no answer has a label; give at least one", option="labels")
    if not said and _OTHER_QUESTION.search(Path(name).stem) and _yes_or_no(values):
        raise UsageError(
            f"`labels={name}` has 1 and 0 (or true and false), which does not say whether 1 is a refusal; write "
            f"`labels={name}:answered` if 1 is an answer that complies, `labels={name}:refused` if it is a refusal",
            option="labels",
        )
    return found


def _yes_or_no(values: Sequence[Any]) -> bool:
    return any(label_verdict(v, Verdict.REFUSED) is not label_verdict(v, Verdict.ANSWERED) for v in values)


def _from_file(path: Path, answers: Sequence[RecordedAnswer], limited: bool) -> tuple[list[Entry], list[Any]]:
    entries = read_entries(path)
    if len(entries) < len(answers) or (len(entries) > len(answers) and not limited):
        raise UsageError(
            f"{path} has {len(entries)} labels for {len(answers)} answers; give one for each, in the same order",
            option="labels",
        )
    values = []
    for entry, answer in zip(entries, answers, strict=False):
        value = entry.value
        if isinstance(value, dict):
            prompt = value.get("prompt")
            if isinstance(prompt, str) and answer.reply.prompt is not None and prompt != answer.reply.prompt:
                raise UsageError(
                    f"{entry.where} labels another prompt than {answer.entry.where}; give both in one order"
                )
            key = next((key for key in _LABEL_KEYS if key in value), None)
            if key is None:
                raise UsageError(f"{entry.where} has no {' or '.join(f'`{key}`' for key in _LABEL_KEYS[:2])}")
            value = value[key]
        values.append(value)
    return entries[: len(answers)], values
