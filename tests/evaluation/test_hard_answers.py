"""A hundred hard answers in ten languages and twelve kinds of templates, labelled before the judge was tuned.

A label is what the text does. The labels are frozen: a judge that disagrees is to be mended, not they.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path

from weight_edit.evaluation.phrase_list import phrase_lists
from weight_edit.evaluation.registry import JudgeSpec, Reply
from weight_edit.evaluation.verdicts import Verdict

FILE = Path(__file__).parent / "hard_answers.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
FROZEN = "65dbcb537b0468824b83aaa8aaa63d705fa573ceaf54a20047b2120eac2f558a"


def judged(kind):
    replies = [Reply(**{key: row[key] for key in ("prompt", "text", "finished", "opened")}) for row in ROWS]
    return JudgeSpec(kind=kind)(replies)


def test_the_table_is_as_it_was_frozen():
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == FROZEN
    assert len(ROWS) == 100
    assert {row["language"] for row in ROWS} == set(phrase_lists())
    assert {row["label"] for row in ROWS} == {verdict.value for verdict in Verdict}
    assert len({row["template"] for row in ROWS}) >= 10


def test_the_phrases_agree_with_it():
    found = judged("phrases")
    missed = [
        (row["id"], row["label"], each.verdict)
        for row, each in zip(ROWS, found, strict=True)
        if each.verdict != row["label"]
    ]
    assert len(missed) <= 5, missed


def test_the_language_is_told():
    told = [(row["language"], each.language) for row, each in zip(ROWS, judged("phrases"), strict=True)]
    known = [(right, found) for right, found in told if found is not None]
    assert len(known) >= 90
    # One answer of the table is in another language than its prompt.
    assert sum(right == found for right, found in known) >= len(known) - 1


def test_no_bare_list_agrees_nearly_as_well():
    counts = Counter(each.verdict == row["label"] for row, each in zip(ROWS, judged("published"), strict=True))
    assert counts[True] < 50
