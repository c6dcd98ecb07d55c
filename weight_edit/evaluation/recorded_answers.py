"""Answers that any tool recorded, as replies to judge, and the same lines with their verdicts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.evaluation.entries import Entry, read_entries
from weight_edit.evaluation.registry import Judgement, Reply
from weight_edit.prompts.columns import PROMPT_COLUMNS
from weight_edit.prompts.thoughts import CLOSE, OPEN

ANSWER_KEYS = ("answer", "response", "completion", "output", "generation", "generated_text", "text")
"""Keys of an answer, in order of preference; names compare without case."""

HARNESS_KEYS = ("resps", "filtered_resps")
"""Keys of an answer in lm-eval's samples: what the model wrote comes before what a filter left of it."""

_CUT = frozenset({"length", "max_tokens", "model_length"})


@dataclass(frozen=True, kw_only=True)
class RecordedAnswer:
    """One recorded answer.

    Attributes:
        entry: as it stands in the file.
        reply: what judges are given.
        set: the prompt set, in files that `evaluate` wrote.
        repeated: it is one that stands in the file already, with another filter of lm-eval, and is not counted again.
    """

    entry: Entry
    reply: Reply
    set: str | None = None
    repeated: bool = False

    def with_verdict(self, judgements: Mapping[str, Judgement]) -> str:
        """The entry as a line of JSON with `verdict`, the first judge's, and `judgements` by judge.

        All else is as it was, in JSON Lines byte for byte, unless the entry has one of the two keys already, which is
        then replaced.
        """
        first = next(iter(judgements.values()))
        added = {"verdict": first.verdict.value, "judgements": {n: _plain(each) for n, each in judgements.items()}}
        value = self.entry.value
        if isinstance(value, str):
            return json.dumps({"answer": value, **added}, ensure_ascii=False)
        if added.keys() & value.keys():
            return json.dumps({**value, **added}, ensure_ascii=False)
        head = self.entry.text.rstrip()[:-1].rstrip()
        return f"{head}{', ' if value else ''}{json.dumps(added, ensure_ascii=False)[1:]}"


def read_answers(path: Path, limit: int | None = None) -> tuple[RecordedAnswer, ...]:
    """The answers of a file, in order.

    Entries are texts, or objects with an answer under a key of `ANSWER_KEYS` and the request under one of
    `PROMPT_COLUMNS`; lm-eval's samples have it in `resps` or `filtered_resps` and in `doc`. The first object says which
    key it is. Where there are `finished` (false) or `finish_reason` (length), the answer was cut; `opened` (true) says
    that it begins within a thought; a `thought`, as `evaluate` writes it, is put before the answer again.

    Args:
        limit: the first so many entries alone.

    Raises:
        UsageError: as `read_entries`; or an entry without an answer, with its line.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"`limit={limit}`: judge at least one answer", option="limit")
    entries = read_entries(path, (*ANSWER_KEYS, *HARNESS_KEYS))[:limit]
    key = _key(entries[0])
    answers: list[RecordedAnswer] = []
    filters: dict[str, None] = {}
    for entry in entries:
        row = entry.value
        if key is None or not isinstance(row, dict):
            if key is not None or not isinstance(row, str):
                raise UsageError(
                    f"{entry.where} is {entry.kind}; make all entries texts, or all objects with an answer"
                )
            answers.append(RecordedAnswer(entry=entry, reply=Reply(prompt=None, text=row)))
            continue
        text = _harness_answer(entry, key) if key in HARNESS_KEYS else _answer(entry, key)
        kind = row.get("filter")
        if isinstance(kind, str):
            filters.setdefault(kind)
        reply = Reply(
            prompt=_prompt(row, key),
            text=_with_thought(row, text),
            finished=not _cut(row),
            opened=row.get("opened") is True,
        )
        answers.append(
            RecordedAnswer(
                entry=entry,
                reply=reply,
                set=row["set"] if isinstance(row.get("set"), str) else None,
                repeated=key in HARNESS_KEYS and isinstance(kind, str) and kind != next(iter(filters)),
            )
        )
    return tuple(answers)


def _key(entry: Entry) -> str | None:
    """The name of the answers' key, as the first entry spells it; None where entries are texts."""
    row = entry.value
    if not isinstance(row, dict):
        return None
    # Samples of lm-eval hold the task's own columns too, such as `answer`, but inside of `doc`.
    found = _first(row, (*HARNESS_KEYS, *ANSWER_KEYS) if "doc" in row else (*ANSWER_KEYS, *HARNESS_KEYS))
    if found is None:
        known = ", ".join(ANSWER_KEYS)
        there = ", ".join(map(str, row)) or "none"
        raise UsageError(f"{entry.where} has no answer under {known} or {HARNESS_KEYS[0]}; its keys are: {there}")
    return found


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    spelled = {str(key).strip().lower(): key for key in reversed(list(row))}
    return next((spelled[name] for name in names if name in spelled), None)


def _answer(entry: Entry, key: str) -> str:
    cell = _cell(entry, key)
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    if isinstance(cell, list) and len(cell) > 1:
        raise UsageError(f"{entry.where}: `{key}` holds {len(cell)} answers; write one a line")
    if not isinstance(cell, str):
        raise UsageError(f"{entry.where}: `{key}` is no text; give each entry the answer as a text")
    return cell


def _harness_answer(entry: Entry, key: str) -> str:
    """The text of a sample: [[text, repeats ...]] in `resps`, [text] in `filtered_resps`."""
    cell = _cell(entry, key)
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0][0] if isinstance(cell[0], list) and cell[0] else cell[0]
    if not isinstance(cell, str):
        raise UsageError(
            f"{entry.where}: `{key}` holds log-likelihoods or nothing, and no answer; record a task that generates"
        )
    return cell


def _cell(entry: Entry, key: str) -> Any:
    if key not in entry.value:
        raise UsageError(f"{entry.where} has no `{key}`, where the first entry has the answer; write it there too")
    return entry.value[key]


def _prompt(row: Mapping[str, Any], answer: str) -> str | None:
    """The request: a text under a known name other than the answer's, in the row or in the sample's `doc`."""
    doc = row.get("doc")
    others = {key: value for key, value in row.items() if key != answer}
    for place in (others, doc if isinstance(doc, dict) else {}):
        texts = {str(key).strip().lower(): value for key, value in place.items() if isinstance(value, str)}
        for name in PROMPT_COLUMNS:
            if name in texts:
                return texts[name]
    return None


def _with_thought(row: Mapping[str, Any], answer: str) -> str:
    """The answer behind the thought that `evaluate` wrote apart from it."""
    thought = row.get("thought")
    if not isinstance(thought, str):
        return answer
    ended = answer or row.get("finished") is True
    return f"{OPEN}{thought}{CLOSE}{answer}" if ended else f"{OPEN}{thought}"


def _cut(row: Mapping[str, Any]) -> bool:
    # A table has texts alone.
    cut = str(row.get("finished")).lower() == "false"
    return cut or row.get("finish_reason") in _CUT or row.get("stop_reason") in _CUT


def _plain(judgement: Judgement) -> dict[str, Any]:
    every = {
        "verdict": judgement.verdict.value,
        "reason": judgement.reason,
        "position": judgement.position,
        "language": judgement.language,
        "score": judgement.score,
    }
    return {name: value for name, value in every.items() if value is not None}
