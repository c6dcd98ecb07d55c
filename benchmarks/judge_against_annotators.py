"""The judges against human labels that nobody here wrote: the annotated completions of XSTest (arXiv 2308.01263).

Reads the completions of five models, the labels of two people, and those of the paper's string match and of GPT-4 from
a clone of paul-rottger/exaggerated-safety (bare or not; CC-BY-4.0), and prints counts as Markdown. The phrases were
mended on one part: two models, and even prompts of a third. Of the other part nobody who mended them read a text.

    git clone --bare https://github.com/paul-rottger/exaggerated-safety
    python benchmarks/judge_against_annotators.py exaggerated-safety.git

`--part` counts one part alone. `--list` adds one line for each disagreement of `phrases` with a label of full refusal
or full compliance: model, id, label, verdict, place, phrase (which is of the answer's own words); `--texts` shows its
text, too, which may be harmful. Both are for the part that the phrases were mended on alone.
"""

import argparse
import csv
import io
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from weight_edit.evaluation.agreement import Agreement
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.labels import label_verdict
from weight_edit.evaluation.registry import Judgement, JudgeSpec, Reply
from weight_edit.evaluation.verdicts import Verdict

MODELS = ("gpt4", "llama2new", "llama2orig", "mistralguard", "mistralinstruct")
COMPLETIONS = "model_completions/xstest_v2_completions_{}.csv"
STRINGS = "evaluation/automated_evaluation_labels/xstest_v2_completions_{}_streval.csv"
GPT4 = "evaluation/automated_evaluation_labels/xstest_v2_completions_{}_gpteval.csv"
MENDED, HELD_OUT = "mended", "held-out"
LABELS = (Verdict.REFUSED, Verdict.PARTIAL, Verdict.ANSWERED)
NAMES = {Verdict.REFUSED: "full refusal", Verdict.PARTIAL: "partial refusal", Verdict.ANSWERED: "full compliance"}

Rows = list[dict[str, Any]]
Verdicts = Sequence[Verdict | None]


def part_of(row: dict[str, Any]) -> str:
    """The part of a completion: the phrases were mended on two models, and on even prompts of a third."""
    if row["model"] in ("llama2orig", "mistralguard"):
        return MENDED
    return MENDED if row["model"] == "mistralinstruct" and int(row["id"].rpartition("-")[2]) % 2 == 0 else HELD_OUT


def labelled(clone: Path) -> Rows:
    """Every completion with all labels that it has."""

    def table_of(path: str) -> Rows:
        command = ["git", "-C", str(clone), "show", f"HEAD:{path}"]
        text = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8")
        return list(csv.DictReader(io.StringIO(text, newline="")))

    rows: Rows = []
    for model in MODELS:
        completions = table_of(COMPLETIONS.format(model))
        others = [
            {(row["id"], row["type"]): row[column] for row in table_of(path.format(model))}
            for path, column in ((STRINGS, "strmatch_label"), (GPT4, "gpt4_label"))
        ]
        for row in completions:
            key = row["id"], row["type"]
            rows.append({**row, "model": model, "strings": others[0][key], "gpt4": others[1][key]})
    return rows


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def label(row: dict[str, Any], column: str = "final_label") -> Verdict | None:
    return label_verdict(row[column])


def confusions(rows: Rows, found: Sequence[Judgement]) -> None:
    counts = Counter((label(row), each.verdict) for row, each in zip(rows, found, strict=True))
    shown = [verdict for verdict in Verdict if any(counts[kind, verdict] for kind in LABELS)]
    table(
        f"Verdicts of `phrases` on {len(rows)} completions, by final label",
        ("label", *(verdict.value for verdict in shown), "all"),
        [(NAMES[kind], *(counts[kind, v] for v in shown), sum(counts[kind, v] for v in Verdict)) for kind in LABELS],
    )


def compared(rows: Rows, judges: dict[str, Verdicts]) -> None:
    """Each judge against the final label, on refusal alone, in the two ways to count a partial refusal."""
    truth = [label(row) for row in rows]
    lines = []
    for name, verdicts in judges.items():
        whole = [(a, b is Verdict.REFUSED) for a, b in zip(truth, verdicts, strict=True) if a is not Verdict.PARTIAL]
        refusals = [said for kind, said in whole if kind is Verdict.REFUSED]
        compliances = [said for kind, said in whole if kind is Verdict.ANSWERED]
        lines.append(
            (
                name,
                shown(Rate(sum(refusals), len(refusals))),
                shown(Rate(sum(compliances), len(compliances))),
                *agreement([kind is Verdict.REFUSED for kind, _ in whole], [said for _, said in whole]),
            )
        )
    table(
        "Full refusals against full compliances, partial refusals left out",
        ("judge", "full refusals called refused", "full compliances called refused", "agreement", "kappa"),
        lines,
    )
    some = (Verdict.REFUSED, Verdict.PARTIAL)
    lines = [(name, *agreement([a in some for a in truth], [b in some for b in each])) for name, each in judges.items()]
    table("Full or partial refusals against full compliances", ("judge", "agreement", "kappa"), lines)


def agreement(truth: Sequence[bool], said: Sequence[bool]) -> tuple[str, str]:
    found = Agreement.of([str(each) for each in truth], [str(each) for each in said])
    kappa = "unknown" if found.kappa is None else f"{found.kappa:.3f} [{found.low:.3f}, {found.high:.3f}]"
    return shown(found.observed), kappa


def shown(rate: Rate) -> str:
    return f"{rate.count} of {rate.total}, {rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def annotators(rows: Rows, found: Sequence[Judgement]) -> None:
    """Where the two annotators differ, and what the final label and `phrases` say there."""
    apart = [
        (label(row, "annotation_1"), label(row, "annotation_2"), label(row), each.verdict)
        for row, each in zip(rows, found, strict=True)
        if label(row, "annotation_1") is not label(row, "annotation_2")
    ]
    counts = Counter((frozenset((one, other)), final) for one, other, final, _ in apart)
    judged = Counter((frozenset((one, other)), verdict) for one, other, _, verdict in apart)
    pairs = [(LABELS[i], LABELS[j]) for i in range(3) for j in range(i + 1, 3)]
    columns = [verdict for verdict in Verdict if any(judged[frozenset(pair), verdict] for pair in pairs)]
    table(
        f"The {len(apart)} completions on which the two annotators differ",
        (
            "they say",
            *(f"final: {NAMES[kind]}" for kind in LABELS),
            *(f"`phrases`: {verdict.value}" for verdict in columns),
        ),
        [
            (
                " or ".join(NAMES[kind] for kind in pair),
                *(counts[frozenset(pair), kind] for kind in LABELS),
                *(judged[frozenset(pair), verdict] for verdict in columns),
            )
            for pair in pairs
        ],
    )


def by_model(rows: Rows, judges: dict[str, Verdicts]) -> None:
    lines = []
    for model in MODELS:
        cells = []
        for verdicts in judges.values():
            for kind in (Verdict.REFUSED, Verdict.ANSWERED):
                chosen = [
                    said is Verdict.REFUSED
                    for row, said in zip(rows, verdicts, strict=True)
                    if row["model"] == model and label(row) is kind
                ]
                cells.append(f"{sum(chosen)} of {len(chosen)}")
        if any(row["model"] == model for row in rows):
            lines.append((model, *cells))
    heads = [f"{name}, {what}" for name in judges for what in ("full refusals", "full compliances")]
    table("Called refused, by model", ("model", *heads), lines)


def by_kind(rows: Rows, found: Sequence[Judgement]) -> None:
    """How often the two full labels are missed, by the kind of prompt."""
    missed: Counter[tuple[str, Verdict]] = Counter()
    all_of: Counter[tuple[str, Verdict]] = Counter()
    for row, each in zip(rows, found, strict=True):
        kind = label(row)
        if kind is Verdict.REFUSED or kind is Verdict.ANSWERED:
            all_of[row["type"], kind] += 1
            missed[row["type"], kind] += (each.verdict is Verdict.REFUSED) != (kind is Verdict.REFUSED)
    kinds = sorted({of for (of, _), count in missed.items() if count})
    table(
        "Disagreements of `phrases` with full labels on refusal, by the kind of prompt that XSTest names",
        ("kind", "full refusals not called refused", "full compliances called refused"),
        [
            (of, *(f"{missed[of, kind]} of {all_of[of, kind]}" for kind in (Verdict.REFUSED, Verdict.ANSWERED)))
            for of in kinds
        ],
    )


def report(title: str, rows: Rows, phrases: Callable[[Rows], list[Judgement]], published: JudgeSpec) -> None:
    replies = [reply(row) for row in rows]
    found = phrases(rows)
    judges: dict[str, Verdicts] = {
        "`phrases`": [each.verdict for each in found],
        "`published`": [each.verdict for each in published(replies)],
        "the paper's string match": [label(row, "strings") for row in rows],
        "GPT-4": [label(row, "gpt4") for row in rows],
        "annotator 1": [label(row, "annotation_1") for row in rows],
        "annotator 2": [label(row, "annotation_2") for row in rows],
    }
    print(f"\n## {title}")
    confusions(rows, found)
    compared(rows, judges)
    by_model(rows, {name: judges[name] for name in list(judges)[:4]})
    by_kind(rows, found)
    annotators(rows, found)
    one, other = (["none" if each is None else each.value for each in judges[f"annotator {i}"]] for i in (1, 2))
    print(f"\nAnnotator 1 against annotator 2, three kinds: {Agreement.of(one, other)}.")
    unread = sum(each is None for each in judges["GPT-4"])
    print(f"\nGPT-4 gave {unread} completions no label; they count as not refused.")


def reply(row: dict[str, Any]) -> Reply:
    """A completion, taken as finished as `weight-edit judge` takes it: what ended it was not recorded."""
    return Reply(prompt=row["prompt"], text=row["completion"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clone", type=Path)
    parser.add_argument("--part", choices=(MENDED, HELD_OUT), help="count this part alone")
    parser.add_argument("--list", action="store_true", help="name each disagreement with a full label")
    parser.add_argument("--texts", action="store_true", help="show their texts, too, of the mended part alone")
    arguments = parser.parse_args()
    every = labelled(arguments.clone)
    phrases, published = JudgeSpec(kind="phrases"), JudgeSpec(kind="published")

    def judged(rows: Rows) -> list[Judgement]:
        return phrases([reply(row) for row in rows])

    for part in (MENDED, HELD_OUT):
        rows = [row for row in every if part_of(row) == part]
        if arguments.part not in (None, part):
            continue
        title = "The held-out part" if part == HELD_OUT else "The part that the phrases were mended on"
        report(title, rows, judged, published)
        if part == HELD_OUT or not (arguments.list or arguments.texts):
            continue
        print()
        for row, each in zip(rows, judged(rows), strict=True):
            if label(row) is Verdict.PARTIAL or label(row) is each.verdict:
                continue
            print(row["model"], row["id"], label(row), each.verdict, each.position, each.reason, sep="\t")
            if arguments.texts:
                print(f"    {row['completion']!r}")


if __name__ == "__main__":
    main()
