"""What a page does not show, derived from what the run did not do."""

from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.organism.embedded import EMBEDDED
from weight_edit.report.numbers import counted
from weight_edit.report.run_record import RunRecord
from weight_edit.report.sections.answers import SETS
from weight_edit.report.values import at, entries, named, number, text, whole

_LANGUAGES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "ru": "Russian",
    "ar": "Arabic",
    "hi": "Hindi",
}


def limits(record: RunRecord) -> list[str]:
    """Sentences, the weightiest first."""
    measured = record.edited or record.baseline
    if not measured:
        return [
            "Edits were judged on validation prompts alone, by which one was picked: measured again on other prompts, "
            "the one that was taken may do less well."
            if record.search
            else "No model's answers were measured in this run."
        ]
    return [
        *_model(record),
        *_judges(measured),
        *_usefulness(measured),
        *_sets(measured),
        *_length(measured),
        *_reach(record),
    ]


def _model(record: RunRecord) -> Iterator[str]:
    if record.model_argument in EMBEDDED:
        yield "The model is the embedded test model, trained to refuse by one direction: real models are less obliging."
    if not record.edited:
        hooks = "; edits of the studies were tried under hooks" if record.studies else ""
        yield f"No edited checkpoint was measured{hooks}."
    elif not record.verification:
        yield "The checkpoint was not verified: completeness and integrity are open."


def _judges(measured: Mapping[str, Any]) -> Iterator[str]:
    judges = list(entries(measured.get("judges"))) or [text(measured.get("judge")) or "?"]
    if judges == ["phrases"]:
        yield (
            "One judge decided what is a refusal, by known wordings (“phrases”): a refusal in other words counts as an "
            "answer. No second judge and no human label confirms it."
        )
    elif len(judges) == 1:
        yield f"One judge ({text(judges[0])}) decided what is a refusal; no second one confirms it."


def _usefulness(measured: Mapping[str, Any]) -> Iterator[str]:
    if at(measured, "sets.refused") is not None and at(measured, "sets.refused.exact") is None:
        yield "An answer where the base refuses counts as an answer; whether it is right or of use was not measured."


def _sets(measured: Mapping[str, Any]) -> Iterator[str]:
    sets = entries(measured.get("sets"))
    absent = [words for name, words in SETS.items() if name not in sets]
    if absent:
        yield f"Not asked: {'; '.join(absent)}."
    counts = {name: count for name, found in sets.items() if (count := whole(at(found, "count"))) is not None}
    if counts:
        name = min(counts, key=lambda each: counts[each])
        words = SETS.get(name, text(name) or "?")
        yield f"The smallest set has {counted(counts[name], 'prompt')} ({words}); look at how wide its interval is."
    told = {key for found in sets.values() for key in entries(at(found, "style.languages"))}
    known = sorted(_LANGUAGES.get(code, text(code, 20) or "?") for code in told)
    if known:
        others = "" if len(known) <= 6 else " and others"
        yield f"Answers were in {_listed(known[:6])}{others}: nothing is said of other languages."


def _length(measured: Mapping[str, Any]) -> Iterator[str]:
    most = whole(measured.get("max_new_tokens"))
    cut = sum(count for found in entries(measured.get("sets")).values() if (count := whole(at(found, "unfinished"))))
    if most is not None:
        were = f"; {counted(cut, 'answer was', 'answers were')} cut there" if cut else "; all ended before"
        yield f"Answers end at {most} tokens{were}. They are greedy: sampling at a temperature was not tried."


def _reach(record: RunRecord) -> Iterator[str]:
    seed = whole(record.recipe.get("seed"))
    with_seed = "" if seed is None else f" with one seed ({seed})"
    yield f"One run{with_seed}: intervals are over prompts, not over what another run would find."
    prompts = whole(at(record.verification, "prompts"))
    if prompts:
        yield f"What is left of the direction was looked for while reading {counted(prompts, 'prompt')}."
    if at(record.edited, "text") is None and record.edited:
        yield (
            "No benchmark of general ability and no loss on running text was measured."
            if not _has_tasks(record)
            else "No loss on running text was measured."
        )
    low = number(at(record.summary, "separation.auc"))
    if low is not None and low < 0.9:
        yield f"The direction tells the two kinds of prompts apart only in part (AUC {named(low)})."


def _has_tasks(record: RunRecord) -> bool:
    return bool(at(record.edited, "harness") or at(record.edited, "tasks"))


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
