"""An edit and its directions in words, as far as the manifest records them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weight_edit.baking.card.markdown import arxiv_links, codes, origin, plain
from weight_edit.edits.kernel import kernels_in_words

DEEDS = {
    "add": "a vector added to the residual stream (activation addition)",
    "reflect": "a direction of the residual stream reflected (counterfactual flip)",
    "affine": "the residual stream's component along a direction set to a class's mean (affine concept editing)",
    "erase": "a concept erased linearly from the residual stream (LEACE)",
    "norm-preserving": "a direction of the residual stream removed, column lengths kept (norm-preserving ablation)",
}
"""Kind of edit -> its effect in a few words, where the strength does not change them."""

_OPENINGS = frozenset(("i", "i'm", "sorry", "as", "unfortunately", "cannot", "can't", "unable", "apologies"))
"""First words of refusals, as searches report them."""

_REFUSED = re.compile(
    r"refus|harmful|jailbreak|unsafe|advbench|harmbench|sorry-?bench|strongreject|malicious", re.IGNORECASE
)


def edit_summary(edit: Mapping[str, Any]) -> str:
    """The effect of the edit, in a few words."""
    strength, kind = edit["strength"], edit["edit"]
    if kind in DEEDS:
        return f"{DEEDS[kind]}, strength {strength:g}" if strength != 1 else DEEDS[kind]
    if kind != "ablate":
        return f"the residual stream changed by the edit '{kind}', strength {strength:g}"
    if edit.get("kernel"):
        return "a direction of the residual stream weakened, more in some layers than in others (ablation by a kernel)"
    if strength == 1:
        return "a direction of the residual stream removed (directional ablation)"
    if strength > 1:
        return f"a direction of the residual stream turned against itself (ablation of strength {strength:g})"
    return f"a direction of the residual stream weakened (ablation of strength {strength:g})"


def is_of_refusal(directions: Mapping[str, Any]) -> bool:
    """Whether the record of a search names refusal as the concept of its directions.

    Its target prompts are called refused or harmful, or the tokens that tell answers to them apart begin a refusal.
    """
    if directions.get("method") in (None, "", "random"):
        return False
    named = any(_REFUSED.search(name) for name in _set_names(directions, "target"))
    return (
        named
        or directions.get("tokens_from") == "answers"
        or any(_opening(token) in _OPENINGS for token in _token_texts(directions))
    )


def _opening(token: str) -> str:
    return token.strip().strip("\u2581\u0120").casefold()


def purpose(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Sentences on the concept that the directions stand for, as far as it is recorded."""
    every = [step["directions"] for step in steps]
    if any(is_of_refusal(directions) for directions in every):
        yield (
            "The edit is meant to change refusal behaviour. This model may answer requests that the base declines, or "
            "decline others."
        )
    if any(directions.get("method") == "random" for directions in every):
        many = "A direction" if len(every) > 1 else "The direction"
        yield f"{many} is random: a control, which stands for no behaviour."
    if any(not directions.get("method") for directions in every):
        many = "some of the directions stand" if len(every) > 1 else "the directions stand"
        yield f"What {many} for is not recorded."
    for directions in every:
        if directions.get("missed"):
            missed = plain(directions["missed"])
            yield f"No candidate of the search kept its bounds, and the nearest was taken: {missed}."
        if directions.get("unconfirmed"):
            yield f"Judged answers did not confirm the directions: {plain(directions['unconfirmed'])}."
    others = [d for d in every if d.get("method") not in (None, "", "random") and not is_of_refusal(d)]
    for directions in others:
        target = codes(_set_names(directions, "target")) or "prompts that are not recorded"
        baseline = codes(_set_names(directions, "baseline")) or "prompts that are not recorded"
        yield f"The directions are those by which the model tells {target} from {baseline}."


def step_rows(steps: Sequence[Mapping[str, Any]], papers: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """The card's rows about each step, numbered where there are several.

    Args:
        papers: arXiv ids by the kind of an edit.
    """
    for number, step in enumerate(steps, 1):
        directions = step["directions"]
        named = [(role, _set_names(directions, role)) for role in ("target", "baseline", "protected")]
        tokens = _token_texts(directions)
        # What a random direction was only compared with says nothing of it.
        is_random = directions.get("method") == "random"
        rows = [
            (f"{role} prompts", codes(names) + _origins(directions, role))
            for role, names in named
            if names and not is_random
        ]
        if tokens and rows:
            rows.insert(1, _tokens(directions))
        # The method of a random direction is that of the directions which it was drawn to compare with.
        by = {"edit": papers.get(step["edit"]), "directions": None if is_random else directions.get("papers")}
        rows[:0] = [(f"paper of the {what}", arxiv_links(ids)) for what, ids in by.items() if ids]
        mark = "" if len(steps) == 1 else f" {number}"
        yield {"mark": mark, "what": plain(_what(step)), "found": plain(_found(directions)), "rows": rows}


def _what(step: Mapping[str, Any]) -> str:
    """One step with its settings, on one line."""
    said = [str(step["edit"]), f"strength {step['strength']:g}"]
    if step.get("at"):
        said.append(f"at the input of {_layers(step['at'])}")
    else:
        said.append("all layers" if step["layers"] is None else _layers(step["layers"]))
    if step.get("kernel"):
        said.append(kernels_in_words(step["kernel"]))
    said += [f"{key} {value}" for key, value in step.get("options", {}).items()]
    return ", ".join(said)


def _layers(layers: Sequence[int]) -> str:
    numbers = [str(layer) for layer in layers]
    return f"layer {numbers[0]}" if len(numbers) == 1 else f"layers {', '.join(numbers[:-1])} and {numbers[-1]}"


def _found(directions: Mapping[str, Any]) -> str:
    """The number of directions and their origin."""
    count, method = directions["shape"][0], directions.get("method")
    if method == "random":
        said = [str(count), "drawn at random"]
    else:
        said = [str(count), f"found by {method}" if method else "how they were found is not recorded"]
    if directions.get("layer") is not None and method != "random":
        said.append(f"at the input of layer {directions['layer']}")
    if directions.get("position") is not None and method != "random":
        said.append(f"position {directions['position']}")
    return ", ".join(said)


def _set_names(directions: Mapping[str, Any], role: str) -> list[str]:
    """Names of the prompt sets recorded for a role."""
    return [str(entry["name"]) for entry in _recorded(directions, role)]


def _origins(directions: Mapping[str, Any], role: str) -> str:
    """What the public sets of a role are parts of, each once."""
    return ";".join(dict.fromkeys(filter(None, (origin(entry.get("source")) for entry in _recorded(directions, role)))))


def _recorded(directions: Mapping[str, Any], role: str) -> list[Mapping[str, Any]]:
    prompts = directions.get("prompts")
    found = prompts.get(role) if isinstance(prompts, Mapping) else None
    entries = found if isinstance(found, list) else [found]
    return [entry for entry in entries if isinstance(entry, Mapping) and entry.get("name")]


def _token_texts(directions: Mapping[str, Any]) -> list[str]:
    """The recorded refusal tokens, as texts."""
    return [str(token["text"]) for token in directions.get("refusal_tokens") or ()]


def _tokens(directions: Mapping[str, Any]) -> tuple[str, str]:
    """The card's row on the first tokens that candidates were scored by: what they are, as far as it is recorded."""
    tokens = list(directions["refusal_tokens"])
    counts = [_opens(token.get("opens")) for token in tokens]
    if None not in counts:
        shown = [
            f"{codes([token['text']])} opens {count}" for token, count in zip(tokens[:_SHOWN], counts, strict=False)
        ]
        more = [f"{len(tokens) - _SHOWN} others"] if len(tokens) > _SHOWN else []
        return "refusal tokens", "; ".join([*shown, *more])
    what = {
        "difference": "first tokens that target prompts make more probable",
        "given": "refusal tokens, as given",
    }
    return what.get(str(directions.get("tokens_from")), "first tokens that candidates were scored by"), codes(
        _token_texts(directions)
    )


_SHOWN = 8


def _opens(opens: Any) -> str | None:
    """The share of refusals and of other answers that a token opens, in words; None where it is not recorded."""
    names = ("refusals", "of_refusals", "others", "of_others")
    if not isinstance(opens, Mapping) or not all(type(opens.get(name)) is int for name in names):
        return None
    refusals, of_refusals, others, of_others = (opens[name] for name in names)
    return f"{refusals} of {of_refusals} refusals, {others} of {of_others} other answers"
