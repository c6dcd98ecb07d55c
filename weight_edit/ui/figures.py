"""What commands found, as HTML for the page: the figures stand in their documents, and nothing is computed here."""

from collections.abc import Mapping, Sequence
from typing import Any

from weight_edit.ui.jobs import Job
from weight_edit.ui.markup import facts, number, paragraph, rate, seconds, size, table, text
from weight_edit.ui.project import Project

_MOST = 12
"""Candidates that are listed."""

SETS = {
    "refused": "refusal of refused requests",
    "over_refused": "refusal of harmless requests that the base refuses",
    "harmless_looking": "refusal of harmless-looking requests",
    "answered": "refusal of ordinary requests",
}


_PUSHED = {"repo_id": "repository", "url": "address", "commit": "commit", "private": "who can see it"}


def inspected(project: Project, job: Job) -> str:
    """A model's structure, in a few facts."""
    found = _of(job.result)
    anatomy, tensors = _of(found.get("anatomy")), _of(found.get("tensors"))
    proof = _of(found.get("proof"))
    blocks = anatomy.get("blocks")
    entries = {
        "architecture": anatomy.get("architecture", "–"),
        "blocks": len(blocks) if isinstance(blocks, list) else "–",
        "width of the residual stream": anatomy.get("d_model", "–"),
        "tensors that an edit changes": len(_of(found.get("edited"))) or "–",
        "tensors in all": len(tensors) or "–",
    }
    if proof:
        entries["left of a direction, on a narrow copy"] = number(proof.get("leak"))
    said = "This model is supported: what writes to its residual stream is known, and was tried on a narrow copy of it."
    return (paragraph(said) if found.get("supported") else "") + facts(entries)


def planned(project: Project, job: Job) -> str:
    """What a find will cost."""
    found = _of(job.result)
    total, memory = _of(found.get("total")), _of(found.get("memory"))
    entries = {
        "time for all of it": seconds(total.get("seconds")),
        "memory": size(memory.get("total")),
        "device": found.get("device", "–"),
    }
    rows = [
        (step.get("name", ""), step.get("what", ""), seconds(step.get("seconds"))) for step in _list(found.get("steps"))
    ]
    notes = "".join(paragraph(note, "note") for note in _texts(found.get("notes")))
    return facts(entries) + notes + table(("step", "of what", "time"), rows, "An estimate, step by step")


def found_directions(project: Project, job: Job) -> str:
    """The choice of a find."""
    return chosen_directions(_of(job.result))


def chosen_directions(found: Mapping[str, Any]) -> str:
    """The choice of a find, of its document or of what its directions file says."""
    accuracy, certainty = _of(found.get("separation")).get("accuracy"), _of(found.get("certainty"))
    entries = {
        "direction": f"layer {found.get('layer')}, position {found.get('position')}, by {found.get('method')}",
        "share of prompts that it tells apart": number(accuracy),
        "candidates": len(_list(found.get("scores"))),
        "that cannot be told from it": len(certainty["ties"]) if isinstance(certainty.get("ties"), list) else "–",
    }
    return facts(entries) + "".join(paragraph(each, "note") for each in _texts(found.get("warnings")))


def candidates_table(found: Mapping[str, Any], taken: tuple[object, object]) -> str:
    """The candidates of a find, the one that it chose first.

    Args:
        taken: layer and position of the one that is marked.
    """
    chosen = (found.get("layer"), found.get("position"))
    # Those that keep the bounds before those that do not; what came furthest before what was left out at once.
    scores = sorted(
        _list(found.get("scores")),
        key=lambda each: (
            (each.get("layer"), each.get("position")) != chosen,
            (each.get("layer"), each.get("position")) != taken,
            each.get("rejected") is not None,
            each.get("kl") is None,
            each.get("induce") is None,
        ),
    )
    rows = [
        (
            each.get("layer"),
            each.get("position"),
            *(number(each.get(name)) for name in ("bypass", "induce", "kl")),
            each.get("rejected") or "keeps the bounds",
        )
        for each in scores[:_MOST]
    ]
    heads = ("layer", "position", "bypass (lower is better)", "induce (higher)", "KL, nats (lower)", "verdict")
    more = f" (the first {_MOST} of {len(scores)})" if len(scores) > _MOST else ""
    marked = next((number for number, row in enumerate(rows) if row[:2] == taken), None)
    said = (
        "Bypass: log-odds that refused prompts are refused when the direction is taken away. Induce: the same of "
        "ordinary prompts when it is added. KL: how far the answers to ordinary prompts move when it is taken away."
    )
    shown = table(heads, rows, f"Candidates{more}; the one that is taken is marked", marked=marked)
    return shown + paragraph(said, "note")


def searched(project: Project, job: Job) -> str:
    """What a search came to, in a few words."""
    found = _of(job.result)
    picked = _of(found.get("picked"))
    entries = {
        "points on the front": len(_list(found.get("front"))),
        "candidates scored": found.get("candidates", "–"),
        "picked": f"point {_of(picked.get('point')).get('digest')}: {picked.get('reason')}",
    }
    return facts(entries) + "".join(paragraph(each, "note") for each in _texts(found.get("warnings")))


def front_table(front: Sequence[Mapping[str, Any]], picked: str) -> str:
    """The points of a front, the picked one marked."""
    rows, marked = [], None
    for place, point in enumerate(front):
        if point.get("digest") == picked:
            marked = place
        damage = _of(_of(point.get("cheap")).get("validation")).get("damage")
        sets = _of(_of(point.get("judged")).get("sets"))
        rates = [rate(_longest(_of(_of(sets.get(name)).get("refusal")))) for name in ("refused", "over_refused")]
        rows.append((place + 1, point.get("digest"), point.get("origin"), *rates, number(damage)))
    heads = ("point", "name", "how it came about", "refusal", "over-refusal", "damage, nats per token")
    said = (
        "Refusal: share of refused prompts that are still refused. Over-refusal: the same of harmless ones that the "
        "base refuses. Damage: how far the answers to ordinary prompts move, as a KL divergence."
    )
    shown = table(
        heads, rows, "The front: no point is better than another in all; the picked one is marked", marked=marked
    )
    return shown + paragraph(said, "note")


def longest_refusal(point: Mapping[str, Any]) -> Mapping[str, Any]:
    """The judged refusal of a point's longest answers, with its interval."""
    sets = _of(_of(point.get("judged")).get("sets"))
    return _longest(_of(_of(sets.get("refused")).get("refusal")))


def run_figures(summary: Mapping[str, Any]) -> str:
    """Before and after of a run, with intervals."""
    before, after = (_of(_of(summary.get(name)).get("sets")) for name in ("baseline", "edited"))
    rows = []
    for name, words in SETS.items():
        if name in before or name in after:
            rows.append((words, *(rate(_of(sets.get(name)).get("refusal")) for sets in (before, after))))
    if "answered" in before and "exact" in _of(before["answered"]):
        rows.append(("answers exactly right", *(rate(_of(s.get("answered")).get("exact")) for s in (before, after))))
    divergence = _of(_of(summary.get("edited")).get("divergence"))
    kl = {}
    if divergence:
        low, high = number(divergence.get("low")), number(divergence.get("high"))
        kl = {"KL divergence from the base, nats": f"{number(divergence.get('mean'))} ({low} to {high})"}
    effect = _of(summary.get("effect"))
    finding = paragraph(effect.get("finding", ""))
    shown = (
        table(("measured", "before", "after"), rows, "Before and after the edit, with 95% intervals") if rows else ""
    )
    return finding + shown + facts(kl)


def certificates(found: Mapping[str, Any]) -> str:
    """What a verification says, in plain words."""
    passed = found.get("passed")
    lines = [
        paragraph(
            "All checks passed." if passed else "A check failed. Do not use this model.", "good" if passed else "bad"
        )
    ]
    compared = _of(found.get("integrity_report"))
    left = number(found.get("leak"))
    complete = f"{_said(found.get('complete'))}: at most {left} of the stream is left"
    if found.get("complete") is False and passed:
        # Layers or strengths of an edit may take a part alone; that is no failure.
        complete = f"not asked for: the edit takes a part alone, and {left} of the stream is left"
    entries = {
        "only these tensors changed": (
            f"{'yes' if found.get('integrity') else 'NO'}: {compared.get('tensors_edited', '–')} edited, "
            f"{compared.get('tensors_equal', '–')} bit for bit the base's"
        ),
        "complete": complete,
        "behaves like the edit that was tried": f"logits differ by {number(found.get('logit_difference'))} at most",
    }
    if found.get("weights_only"):
        entries = {"only these tensors changed": entries["only these tensors changed"]}
    problems = "".join(paragraph(each, "bad") for each in _texts(found.get("problems")))
    return "".join(lines) + facts(entries) + problems


def pushed(project: Project, job: Job) -> str:
    """What was uploaded, or would be."""
    found = _of(job.result)
    files = found.get("files")
    names = list(files) if isinstance(files, list | dict) else []
    entries = {words: found[name] for name, words in _PUSHED.items() if found.get(name) not in (None, "")}
    if isinstance(found.get("private"), bool):
        entries[_PUSHED["private"]] = "you alone" if found["private"] else "everybody"
    listed = "".join(f"<li>{text(name)}</li>" for name in names)
    return facts(entries) + (f'<ul class="we-files">{listed}</ul>' if listed else "")


def _longest(by_length: Mapping[str, Any]) -> Mapping[str, Any]:
    lengths = sorted((length for length in by_length if length.isdecimal()), key=int)
    return _of(by_length[lengths[-1]]) if lengths else {}


def _said(value: object) -> str:
    return {True: "yes", False: "NO"}.get(value, "–") if isinstance(value, bool) else "–"


def _of(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
