"""The judges against labels that nobody here wrote: the recorded completions of andyrdt/refusal_direction.

Reads `pipeline/runs/*/completions/*_evaluations.json` from a clone (bare or not) and prints counts as Markdown: the
literal list against the recorded substring labels; `phrases` against these and against the recorded labels of Llama
Guard 2; where the first phrase stands; what became of refusals that end in a loop; verdicts of answers cut short.

    git clone --bare https://github.com/andyrdt/refusal_direction && python benchmarks/judge_against_recorded.py \\
        refusal_direction.git

`--list` adds one line for each disagreement: file, number, verdict, place of the phrase; `--texts` shows its text, too,
which may be harmful.
"""

import argparse
import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from weight_edit.evaluation.phrase_list import phrase_list, skeleton, spans
from weight_edit.evaluation.registry import Judgement, JudgeSpec, Reply
from weight_edit.evaluation.structure import FEW, structure_of
from weight_edit.evaluation.verdicts import Verdict

SUBSTRING, GUARD = "is_jailbreak_substring_matching", "is_jailbreak_llamaguard2"
LENGTHS = (100, 200, 400, 800)
ENDS = frozenset(".!?)\"'*`”’>]}~#")


def recorded(clone: Path) -> list[dict[str, Any]]:
    """Every labelled completion, with the file that it is from."""
    git = ["git", "-C", str(clone)]
    listed = subprocess.run([*git, "ls-tree", "-r", "--name-only", "HEAD"], capture_output=True, text=True, check=True)
    rows = []
    for path in sorted(listed.stdout.splitlines()):
        if "/completions/" not in path or not path.endswith("_evaluations.json"):
            continue
        text = subprocess.run([*git, "show", f"HEAD:{path}"], capture_output=True, check=True).stdout
        name = "/".join((path.split("/")[2], Path(path).stem.removesuffix("_evaluations")))
        rows += [{"file": name, "number": i, **row} for i, row in enumerate(json.loads(text)["completions"])]
    return rows


def reply(row: dict[str, Any], length: int | None = None) -> Reply:
    """A recorded completion; whether it was finished is not recorded, so that its last character has to tell."""
    text = row["response"]
    if length is not None and len(text) > length:
        return Reply(prompt=row["prompt"], text=text[:length], finished=False)
    return Reply(prompt=row["prompt"], text=text, finished=text.rstrip()[-1:] in ENDS)


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def guard(row: dict[str, Any]) -> str:
    return {0: "safe", 1: "unsafe", None: "none"}[row.get(GUARD)]


def against_labels(rows: list[dict[str, Any]], found: list[Judgement]) -> None:
    counts = Counter(
        (each.verdict.value, "refused" if row[SUBSTRING] == 0 else "not", guard(row))
        for row, each in zip(rows, found, strict=True)
    )
    columns = [(label, said) for label in ("refused", "not") for said in ("safe", "unsafe", "none")]
    table(
        "Verdicts of `phrases` by the recorded substring label and the guard model's",
        ("verdict", *(f"{label}, guard: {said}" for label, said in columns)),
        [(v.value, *(counts[v.value, *column] for column in columns)) for v in Verdict],
    )
    same = sum(
        (each.verdict is Verdict.REFUSED) == (row[SUBSTRING] == 0) for row, each in zip(rows, found, strict=True)
    )
    print(f"\nRefused by both or by neither: {same} of {len(rows)}.")


def first_phrases(rows: list[dict[str, Any]]) -> None:
    """Where the first phrase of a refusal stands, whatever the verdict, and what the guard model says of the answer."""
    english = phrase_list("en")
    counts: Counter[tuple[str, str]] = Counter()
    words_before = []
    for row in rows:
        words = skeleton(structure_of(reply(row)).answer, True).text
        void = [*spans(english.exceptions, words)]
        hits = [span for kind in (english.refusals, english.openings) for span in spans(kind, words)]
        hits = sorted(span for span in hits if not any(span[0] < stop and start < span[1] for start, stop in void))
        if hits:
            before = len(words[: hits[0][0]].replace(".", " ").split())
            words_before.append(before)
            counts["0 to 7" if before < 8 else "8 to 29" if before < 30 else "30 and more", guard(row)] += 1
    table(
        "Words before the first phrase",
        ("words", "guard: safe", "guard: unsafe", "no guard label"),
        [(w, *(counts[w, g] for g in ("safe", "unsafe", "none"))) for w in ("0 to 7", "8 to 29", "30 and more")],
    )
    early = sum(before < FEW for before in words_before)
    print(f"\n{early} of {len(words_before)} stand within the first {FEW} words.")


def loops(rows: list[dict[str, Any]], found: list[Judgement]) -> None:
    looping = [
        (row, each)
        for row, each in zip(rows, found, strict=True)
        if structure_of(reply(row)).flaw is Verdict.LOOPING and row[SUBSTRING] == 0
    ]
    counts = Counter(each.verdict.value for _, each in looping)
    print(f"\nRecorded refusals that end in a loop: {len(looping)}; verdicts: {dict(counts)}.")
    helpless = [
        each.verdict
        for row, each in zip(rows, found, strict=True)
        if any(f"{can} help but" in row["response"].lower() for can in ("can't", "cannot", "couldn't"))
    ]
    print(f'\n"Can\'t help but" and its like: {len(helpless)} answers, {helpless.count(Verdict.REFUSED)} refused.')


def cut_short(rows: list[dict[str, Any]]) -> None:
    lines = []
    for length in LENGTHS:
        counts = Counter(each.verdict for each in JudgeSpec(kind="phrases")([reply(row, length) for row in rows]))
        lines.append((length, *(counts[verdict] for verdict in Verdict)))
    table("Verdicts of the first characters", ("characters", *(verdict.value for verdict in Verdict)), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clone", type=Path)
    parser.add_argument("--list", action="store_true", help="name each disagreement with a recorded label")
    parser.add_argument("--texts", action="store_true", help="show their texts, too")
    arguments = parser.parse_args()
    rows = recorded(arguments.clone)
    replies = [reply(row) for row in rows]
    literal = JudgeSpec(kind="published")(replies)
    same = sum(
        (each.verdict is Verdict.REFUSED) == (row[SUBSTRING] == 0) for row, each in zip(rows, literal, strict=True)
    )
    print(f"`published` agrees with {same} of {len(rows)} recorded substring labels.")
    found = JudgeSpec(kind="phrases")(replies)
    against_labels(rows, found)
    first_phrases(rows)
    loops(rows, found)
    cut_short(rows)
    if arguments.list or arguments.texts:
        for row, each in zip(rows, found, strict=True):
            refused = each.verdict is Verdict.REFUSED
            if refused == (row[SUBSTRING] == 0) and not (refused and row.get(GUARD) == 1):
                continue
            print(row["file"], row["number"], each.verdict.value, guard(row), each.position, each.reason, sep="\t")
            if arguments.texts:
                print(f"    {row['response']!r}")


if __name__ == "__main__":
    main()
