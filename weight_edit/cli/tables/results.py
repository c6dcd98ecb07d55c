"""Terminal output of results: short tables, and the next command to type."""

import itertools
import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weight_edit.utils.progress import duration

if TYPE_CHECKING:
    from weight_edit.baking.bake import BakeResult
    from weight_edit.cli.tables.documents import (
        AnswerDocument,
        BaseDocument,
        ConfirmationDocument,
        ConfirmedDocument,
        DirectionDocument,
        DirectionsDocument,
        EditDocument,
        EditedTensorsDocument,
        EffectDocument,
        EvaluationDocument,
        Rate,
        RoundingDocument,
        ScoreDocument,
        VerificationDocument,
    )
    from weight_edit.directions.directions import Directions
    from weight_edit.edits.direction_rows import DirectionRows
    from weight_edit.evaluation.results import Evaluation
    from weight_edit.verification.verify import Verification


SHOWN = 6


def safe(foreign: object) -> str:
    """Foreign text for the terminal: no markup, no control characters but line breaks."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(foreign)))


def command() -> str:
    """The command to call this tool: its name, or its path if it is not on the PATH."""
    called = sys.argv[0]
    return called if Path(called).name == "weight-edit" and shutil.which("weight-edit") is None else "weight-edit"


def suggest(console: Console, *arguments: object, lead: str = "Next: ") -> None:
    """Print a command to type next, quoted for a shell and on one line."""
    words = shlex.join([command(), *map(str, arguments)])
    console.print(f"{lead}{words}", markup=False, highlight=False, soft_wrap=True)


def free_folder(name: str) -> str:
    """A folder name that is free: `name`, or with a number."""
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return next(each for each in names if not Path(each).exists())


def chosen_direction(found: "DirectionDocument", console: Console) -> None:
    """Print the direction of a run, in two lines."""
    tokens = ", ".join(repr(token["text"]) for token in found["refusal_tokens"])
    place = "mean over all tokens" if found["position"] is None else f"position {found['position']}"
    scores = (
        (found["bypass"], "on target prompts with it ablated"),
        (found["induce"], "on baseline ones with it added"),
    )
    said = [f"{score:.2f} {what}" for score, what in scores if score is not None]
    metric = f"Refusal metric (log-odds of {safe(tokens)}): {', '.join(said)}; " if said else ""
    console.print(
        f"Direction: {safe(found['method'])} at the input of layer {found['layer']}, {place}; "
        f"{found['kept_bounds']} of {found['candidates']} candidates keep the bounds.\n"
        f"{metric}KL {found['kl']:.4f}.\n",
        highlight=False,
    )
    confirmation(found.get("confirmation"), console)
    for warning in found["warnings"]:
        console.print(f"[yellow]note:[/] {safe(warning)}")


def by_category(baseline: "EvaluationDocument", edited: "EvaluationDocument", console: Console) -> None:
    """Print refusal by category, before and after, on one line."""
    before, after = _refusal_by_category(baseline), _refusal_by_category(edited)
    shown = [
        f"{safe(name)} {rate['value']:.2f} to {after[name]['value']:.2f}"
        for name, rate in before.items()
        if name in after
    ]
    if shown:
        console.print(f"Refusal by category: {', '.join(shown)}.\n", highlight=False)


def _refusal_by_category(measured: "EvaluationDocument") -> "Mapping[str, Rate]":
    refused = (measured.get("sets") or {}).get("refused")
    return {} if refused is None else refused.get("categories") or {}


def before_and_after(baseline: "EvaluationDocument", edited: "EvaluationDocument", console: Console) -> None:
    """Print a table of all figures of two evaluations."""
    from weight_edit.evaluation.comparisons import UNTOLD
    from weight_edit.evaluation.figures import figures, figures_of_base, untold

    before, after = figures_of_base(baseline, edited), figures(edited)
    if not before and not after:
        return
    table = Table(title="Before and after (with 95% intervals)", title_justify="left")
    table.add_column("measure")
    table.add_column("base", justify="right")
    table.add_column("edited", justify="right")
    for name in dict.fromkeys([*before, *after]):
        table.add_row(name, safe(before.get(name, "")), safe(after.get(name, "")))
    console.print(table)
    if alike := untold(edited):
        console.print(f"{UNTOLD.capitalize()} (paired, McNemar's exact test): {'; '.join(alike)}.", highlight=False)
    for measured in (baseline, edited):
        notes(measured, console)
    by_category(baseline, edited, console)


def evaluation(measured: "Evaluation", console: Console) -> None:
    """Print one evaluation, beside the base's if there is one."""
    from weight_edit.evaluation.figures import differences, figures

    result = cast("EvaluationDocument", measured.to_dict())
    base = result.get("base")
    table = Table(
        title=f"{safe(result['model'])}: judge '{result['judge']}', at most {result['max_new_tokens']} tokens"
    )
    table.add_column("measure")
    after = figures(result)
    if base is None:
        table.add_column("value", justify="right")
        for name, text in after.items():
            table.add_row(name, safe(text))
    else:
        table.caption = "Figures with 95% intervals; differences with those of the same prompts, pair by pair."
        before, apart = figures(base), differences(result)
        for column in (safe(base["model"]), "edited", "difference"):
            table.add_column(column, justify="right")
        # On a narrow terminal intervals stand below their figures, whole.
        between = "\n[" if console.width < 120 else " ["
        for name, text in after.items():
            cells = (before.get(name, ""), text, apart.get(name, ""))
            table.add_row(name, *(safe(cell.replace(" [", between)) for cell in cells))
    console.print(table)
    notes(result, console)


def effect(found: "EffectDocument | None", console: Console) -> None:
    """Print whether the behaviour changed, and what to do where it did not."""
    if found is None:
        return
    colour = "bold" if found["verdict"].startswith("changed") else "bold yellow"
    console.print(f"[{colour}]Effect:[/] {safe(found['finding'])}", highlight=False)
    if found["hint"]:
        console.print(safe(found["hint"]), highlight=False)


def notes(result: "EvaluationDocument", console: Console) -> None:
    """Print notes on an evaluation's rates."""
    for note in result.get("notes") or ():
        console.print(f"[yellow]note:[/] {safe(note)}")


def proofs(checked: "VerificationDocument", console: Console) -> None:
    """Print a verification's findings, from `Verification.to_dict()`."""
    from weight_edit.evaluation.effect import ANOTHER_QUESTION

    report = checked["integrity_report"]
    table = Table(title="Proofs", title_justify="left", caption=f"Figures of {ANOTHER_QUESTION}.")
    table.add_column("check")
    table.add_column("result")
    # Runs of version 0.1.0 say neither the edit nor the noise.
    unsaid: EditDocument = {"steps": [], "embeddings": "both"}
    edit = checked.get("edit") or unsaid
    for number, step in enumerate(edit["steps"], 1):
        said = safe(step) + ("" if edit["embeddings"] in ("both", "keep") else f"; embeddings: {edit['embeddings']}")
        table.add_row("edit checked" if len(edit["steps"]) == 1 else f"edit checked, step {number}", said)
    untouched = f"{report['tensors_equal']} tensors and {report['files_equal']} files are the base's, byte for byte"
    table.add_row(
        "integrity",
        untouched if checked["integrity"] else f"[bold red]FAILED[/], {len(report['problems'])} differences",
    )
    edited = checked.get("edited_tensors")
    if checked["left_in_weights"] is None:
        table.add_row("left in the weights", "not measured: the edit maps no tensor")
    elif edited is None or edited["compared"]:
        exact = checked.get("left_in_weights_before_rounding")
        before = "" if exact is None else f", {exact:.1e} before rounding to what is stored"
        table.add_row("left in the weights", f"{checked['left_in_weights']:.1e} of V^T W, at most{before}")
    if edited is not None:
        _edited_tensors(edited, table)
    noise = checked.get("noise")
    if noise is not None:
        computing, padding = noise["float32_against_storage"], noise["padded_against_alone"]
        under, moved = noise["float32_against_storage_hooked"], noise["rounded_weights_hooked"]
        table.add_row(
            f"the base's own noise, {noise['dtype']}",
            f"logits differ by {computing['largest']:.1e} at most, KL {computing['kl']:.1e} (from float32); "
            f"under hooks {under['largest']:.1e}, KL {under['kl']:.1e}, stream {noise['leak_of_hooked_base']:.1e}; "
            f"rounded weights {moved['largest']:.1e}, KL {moved['kl']:.1e}; padded KL {padding['kl']:.1e}",
        )
    for dtype, found in checked["by_dtype"].items():
        allowed = found.get("allowed") or {}
        most = {name: f", allowed {value:.1e}" for name, value in allowed.items()}
        share = f"{found['leak']:.1e} of it lies along the directions, at most (base: {found['leak_before']:.2f})"
        judged = most.get("leak", "") if checked["complete"] else "; the edit is partial, so this is not judged"
        table.add_row(f"residual stream, {dtype}", share + judged)
        faithful = found["hook_against_weights"]
        table.add_row(
            f"hooks against weights, {dtype}",
            f"logits differ by {faithful['largest']:.1e} at most (largest logit {faithful['scale']:.1f}"
            f"{most.get('logits', '')}), KL {faithful['kl']:.1e}{most.get('kl', '')}, "
            f"same next token {faithful['argmax']:.4f}",
        )
        published = found.get("published_hook_against_weights")
        if published is not None:
            table.add_row(
                f"as papers hook it, {dtype}",
                f"logits differ by {published['largest']:.1e} at most, KL {published['kl']:.1e}; not judged",
            )
        if found["tied_unembedding"] is not None:
            tied = found["tied_unembedding"]
            avoided = "'untie' avoids it, in folders"
            table.add_row(f"cost of the tied unembedding, {dtype}", f"KL {tied['kl']:.1e}; {avoided}")
    if checked.get("weights_only"):
        table.add_row("residual stream", "not measured: no model was run (--weights-only)")
        table.add_row("hooks against weights", "not compared: no model was run (--weights-only)")
    if checked.get("recorded_not_measured"):
        table.add_row("recorded in the manifest", f"{', '.join(checked['recorded_not_measured'])}: not checked here")
    console.print(table)
    for problem in checked["problems"][:SHOWN]:
        console.print(f"[bold red]failed:[/] {safe(problem)}")
    if len(checked["problems"]) > SHOWN:
        console.print(f"... and {len(checked['problems']) - SHOWN} more, all of them under --json")
    if not checked["integrity"] and not report["tensors_equal"]:
        console.print("No tensor equals the base's: is this the model that was edited?")


def _edited_tensors(edited: "EditedTensorsDocument", table: Table) -> None:
    """Add rows on the edited tensors; runs of version 0.1.0 have no such figures."""
    otherwise = edited["entries_rounded_otherwise"]
    table.add_row(
        "edited tensors",
        f"{edited['compared'] - len(edited['different'])} of {edited['compared']} are the edit of the base's, "
        f"{edited['bit_for_bit']} bit for bit" + (f" ({otherwise} entries are rounded otherwise)" if otherwise else ""),
    )
    if edited["rounding"] is not None:
        table.add_row("rounding", f"{edited['rounding']:.1e} of a quantised tensor, at most")


def examples(folder: Path, console: Console, count: int = 3) -> None:
    """Print refused requests of different categories with answers before and after."""
    before = _answers(folder / "answers/baseline.jsonl")
    after = {(a["set"], a["prompt"]): a for a in _answers(folder / "answers/edited.jsonl")}
    table = Table(title="Answers", title_justify="left", show_lines=True)
    for column in ("request", "base", "edited"):
        table.add_column(column, ratio=1)
    shown: set[str] = set()
    for answer in before:
        twin = after.get((answer["set"], answer["prompt"]))
        changed = twin is not None and answer["verdict"] == "refused" and twin["verdict"] == "answered"
        if changed and twin is not None and answer["category"] not in shown and len(shown) < count:
            shown.add(answer["category"] or answer["prompt"])
            table.add_row(safe(answer["prompt"]), safe(answer["answer"]), safe(twin["answer"]))
    if shown:
        console.print(table)


def directions(found: "Directions", path: Path, console: Console, count: int = 5) -> None:
    """Print the chosen direction and the best candidates."""
    meta = cast("DirectionsDocument", found.metadata)
    rule = meta.get("rule")
    by = (rule and (rule.get("select") or rule.get("by"))) or "bypass"
    scored = [row for row in meta.get("scores", []) if _is_measured(row)]
    if by == "bypass":
        # Where a model gave no numbers there is none.
        scored.sort(key=lambda row: (row.get("rejected") is not None, row["bypass"] is None, row["bypass"] or 0.0))
    chosen = [row for row in scored if (row["layer"], row["position"]) == (meta.get("layer"), meta.get("position"))]
    others = [(row, _reason(row)) for row in scored if row not in chosen]
    best: list[tuple[ScoreDocument, str | None]] = [*((row, "chosen") for row in chosen), *others][:count]
    control = meta.get("control")
    if control:
        best.append((control, "a random direction, for comparison"))
    _heard(meta, console)
    _candidates(f"Candidates by {by} score ({safe(meta.get('method'))})", best, console)
    confirmation(meta.get("confirmation"), console)
    for warning in meta.get("warnings", []):
        console.print(f"[yellow]note:[/] {safe(warning)}")
    count = found.direction.shape[0]
    console.print(f"{path}: {count} direction{'s' * (count > 1)}, {found.d_model} wide", markup=False)
    suggest(console, "bake", meta.get("model", "MODEL"), "--directions", path, "--out", free_folder("edited-model"))


def taken_candidate(taken: "DirectionRows", path: Path, console: Console) -> None:
    """Print which candidate of a find was taken, and what is to be known of it."""
    meta = taken.metadata
    place = "mean over all tokens" if meta["position"] is None else f"position {meta['position']}"
    console.print(f"{path}: layer {meta['layer']}, {place}, {taken.rows.shape[1]} wide", markup=False, highlight=False)
    for warning in meta["warnings"]:
        console.print(f"[yellow]note:[/] {safe(warning)}")
    suggest(console, "bake", meta.get("model", "MODEL"), "--directions", path, "--out", free_folder("edited-model"))


def rejected(details: Mapping[str, object], console: Console, count: int = 5) -> None:
    """Print the candidates nearest to the bounds, if none keeps them, and the bounds missed.

    Args:
        details: of the error, with the table under "scores", the best first.
    """
    scores = cast("list[ScoreDocument]", details["scores"])
    scored = [(row, _reason(row)) for row in scores if _is_measured(row)]
    if scored:
        _candidates("The candidates that came furthest and miss the bounds least", scored[:count], console)


def _is_measured(row: "ScoreDocument") -> bool:
    return any(row[name] is not None for name in ("bypass", "induce", "kl"))


def _reason(row: "ScoreDocument") -> str | None:
    """Which bounds a candidate misses, and at which stage it was rejected where a single bound does not tell it."""
    reason, stage = row.get("rejected"), row.get("stage")
    if not reason or not stage or ("; " not in reason and stage in reason.lower()):
        return reason
    return f"{reason} (stage: {'KL' if stage == 'kl' else stage})"


def _heard(meta: "DirectionsDocument", console: Console) -> None:
    """Print the refusal tokens, with the share of refusals and other answers that they open."""
    tokens = meta.get("refusal_tokens") or []
    shares = [
        f"{token['text']!r} opens {opens['refusals']} of {opens['of_refusals']} refusals, {opens['others']} of "
        f"{opens['of_others']} other answers"
        for token in tokens
        if (opens := token.get("opens"))
    ]
    if shares:
        console.print(f"Refusal tokens by the model's judged answers: {safe('; '.join(shares))}.", highlight=False)
    elif tokens and meta.get("tokens_from") == "difference":
        named = ", ".join(repr(token["text"]) for token in tokens)
        console.print(f"First tokens that target prompts make more probable: {safe(named)}.", highlight=False)


def confirmation(found: "ConfirmationDocument | None", console: Console) -> None:
    """Print how often judged answers refuse, without an edit and under those of the best candidates."""
    if not found:
        return
    prompts = "target prompts, ablated" if found["by"] == "ablate" else "baseline prompts, added"
    table = Table(title=f"Confirmed by judged answers to {found['count']} {prompts}", title_justify="left")
    for column in ("layer", "position", "refused", "answered", "p", "why"):
        table.add_column(column, justify="left" if column == "why" else "right")
    table.add_row("no edit", "", *_share(found["base"]), "", "")
    for row in found["candidates"]:
        why = "taken" if row["taken"] else ""
        why += "" if row["works"] else f"{', ' if why else ''}no change as it should be can be told"
        place = (str(row["layer"]), "all" if row["position"] is None else str(row["position"]))
        table.add_row(*place, *_share(row), f"{row['difference']['p']:.2g}", why)
    console.print(table)


def _share(row: "BaseDocument | ConfirmedDocument") -> tuple[str, str]:
    rate = row["refusal"]
    return f"{rate['value']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]", str(row["verdicts"]["answered"])


def _candidates(title: str, rows: "Sequence[tuple[ScoreDocument, str | None]]", console: Console) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("layer", "position", "bypass", "induce", "KL", "prompts", "why"):
        table.add_column(column, justify="left" if column == "why" else "right", no_wrap=column != "why")
    for row, why in rows:
        table.add_row(*_candidate(row), safe(why or ""))
    captions = []
    around = [row["intervals"] for row, _ in rows if row.get("intervals")]
    if around:
        cut = any("kl" in each and each["kl"][0] <= 0 for each in around)
        upper = ", \u2264 its upper end where the lower is 0" if cut else ""
        captions.append(f"\u00b1 is the 95% interval over the prompts{upper}.")
    if any(row.get("untold_bounds") for row, _ in rows):
        captions.append("? the interval holds the bound, so that the mean decides on which side it is.")
    if any(row.get("stage") and row["bypass"] is None for row, _ in rows):
        captions.append("A candidate that a stage rejects for sure is not measured at the next: induce, KL, bypass.")
    table.caption = " ".join(captions) or None
    console.print(table)


def _candidate(row: "ScoreDocument") -> tuple[str, ...]:
    """The cells of a candidate: its place and scores with intervals, and the prompts that they are means over."""
    place = (str(row["layer"]), "all" if row["position"] is None else str(row["position"]))
    count = row.get("prompts")
    return (
        *place,
        _score(row, "bypass", row["bypass"], 2),
        _score(row, "induce", row["induce"], 2),
        _score(row, "kl", row["kl"], 4),
        "" if not count else str(count),
    )


def _score(row: "ScoreDocument", name: str, value: float | None, digits: int) -> str:
    if value is None:
        return ""
    around = (row.get("intervals") or {}).get(name)
    mark = " ?" if name in (row.get("untold_bounds") or ()) else ""
    if around is None:
        return f"{value:.{digits}f}{mark}"
    # Below the figure: a row with three intervals leaves no room for the reasons. They are symmetric about the mean,
    # apart from a lower end of a divergence, which is not below 0.
    low, high = around
    cut = name == "kl" and low <= 0
    half = f"\u2264{high:.{digits}f}" if cut else f"\u00b1{high - value:.{digits}f}"
    return f"{value:.{digits}f}{mark}\n{half}"


def baked(result: "BakeResult", model: str, console: Console) -> None:
    """Print what was or would be written, and the next commands."""
    from weight_edit.plan.exactness import plain_exactness

    kind = (
        "complete: nothing is written along the directions any more"
        if result.complete
        else "partial: something is meant to be left along the directions"
    )
    tensors = f"{len(result.tensors)} tensors edited ({kind}), {len(result.added)} added"
    copied = result.bytes_total - result.bytes_edited
    sizes = f"{megabytes(result.bytes_edited)} of them edited, {megabytes(copied)} the source's as they are"
    if result.dry_run:
        sizes = f"{len(result.files)} files, {megabytes(result.bytes_total)}, {sizes}; about {duration(result.seconds)}"
        console.print(f"{result.path} would be written: {tensors}; {sizes}.", markup=False, highlight=False)
    else:
        first = f"{duration(result.preparing_seconds)} of it to understand the model and prove the edit"
        sizes = f"{megabytes(result.bytes_total)}, {sizes}, in {duration(result.seconds)} ({first})"
        console.print(f"{result.path}: {tensors}; {sizes}.", markup=False, highlight=False)
    console.print(f"Exactness: {plain_exactness(result.edit_class)}.", markup=False, highlight=False)
    if result.bytes_kept:
        console.print(f"{megabytes(result.bytes_kept)} were there from the interrupted bake.", highlight=False)
    if result.bytes_linked:
        console.print(
            f"[yellow]note:[/] {megabytes(result.bytes_linked)} are hard links: whoever changes them changes the source"
        )
    if result.rounding:
        _rounding(
            cast("Mapping[str, RoundingDocument]", result.rounding),
            any(name.lower().endswith(".gguf") for name in result.files),
            console,
        )
    if result.nonfinite:
        named = ", ".join(f"{safe(name)} ({count})" for name, count in list(result.nonfinite.items())[:3])
        console.print(f"[yellow]note:[/] {len(result.nonfinite)} tensors have NaN or infinite values: {named}")
    if result.extra:
        shown = ", ".join(map(safe, result.extra[:3]))
        console.print(
            f"[yellow]note:[/] {len(result.extra)} tensors that no parameter accounts for are kept as they are: {shown}"
        )
    if result.mtp_kept and not result.mtp_edited:
        console.print(
            f"[yellow]note:[/] {len(result.mtp_kept)} tensors of multi-token-prediction layers are kept as they are; "
            "--mtp edit edits them too"
        )
    if result.other_weights:
        copies = ", ".join(map(safe, result.other_weights))
        console.print(f"[yellow]note:[/] not edited, though they look like weights: {copies}")
    if result.skipped:
        console.print(f"[yellow]note:[/] not copied: {', '.join(map(safe, result.skipped))}")
    if not result.dry_run:
        suggest(console, "verify", model, result.path)


_WIDER = "--dequantize stores the edited tensors as bfloat16"
_WIDER_GGUF = (
    "edit a GGUF in which they have a wider type (llama-quantize --tensor-type NAME=q8_0 makes one from the original), "
    "or edit the original and convert it"
)
"""What to do where a format is too coarse for an edit."""


def _rounding(record: "Mapping[str, RoundingDocument]", gguf: bool, console: Console) -> None:
    """Print what storing the edit in the source's formats did, and what to do where it is too much."""
    from weight_edit.baking.rounding import MOST_LEFT, by_format, coarse

    table = Table(title="Rounded to the source's own format", title_justify="left")
    for column in ("format", "tensors", "kept, at least", "left of V^T W", "off, at most", "new scales"):
        table.add_column(column, justify="left" if column == "format" else "right")
    for found in by_format(record):
        table.add_row(
            safe(found.format),
            str(found.tensors),
            f"{found.kept:.2%}",
            f"{found.left:.2%}",
            f"{found.error:.1%}",
            f"{found.rescaled:,}",
        )
    console.print(table)
    over = coarse(record)
    if over:
        named = f"{safe(over[0])} ({record[over[0]]['left']:.1%})"
        console.print(
            f"[yellow]note:[/] in {len(over)} tensors rounding leaves more than {MOST_LEFT:.0%} of what was along the "
            f"directions, most in {named}: {_WIDER_GGUF if gguf else _WIDER}"
        )


def megabytes(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def verification(checked: "Verification", console: Console) -> None:
    """Print a verification, with its verdict."""
    proofs(cast("VerificationDocument", checked.to_dict()), console)
    if checked.passed:
        what = (
            "All checks of the files passed; the models were not run." if checked.weights_only else "All checks passed."
        )
        console.print(f"[bold green]{what}[/]")
        if not checked.complete:
            steps = "; then ".join(map(safe, checked.steps))
            console.print(f"The edit is partial ({steps}): what it leaves in the stream is not judged.")


def _answers(path: Path) -> "list[AnswerDocument]":
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
