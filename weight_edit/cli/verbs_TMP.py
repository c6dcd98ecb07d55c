"""The verbs that load a model first: what `find` and `evaluate` of the command line do with names and files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.checkpoint.source.fingerprint import fingerprint
from weight_edit.checkpoint.whole_file import check_free
from weight_edit.directions.file import folder_of, is_directions
from weight_edit.directions.names import check_method, check_positions
from weight_edit.directions.samples import check_search
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UsageError
from weight_edit.evaluation.answers_file import are_answers
from weight_edit.hub.source import resolve
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.utils.progress import announce
from weight_edit.utils.seeds import check_seed

if TYPE_CHECKING:
    from weight_edit.directions.directions import Directions
    from weight_edit.evaluation.evaluate import Evaluation
    from weight_edit.prompts.chat import ChatFormat


_DEFAULTS: Mapping[str, Any] = {
    "n_train": 128,
    "n_validation": 32,
    "method": "mean-difference",
    "options": None,
    "positions": "template",
    "refusal_tokens": None,
    "filter_prompts": True,
    "seed": 0,
}
"""Of `find_directions`, whose module takes seconds to import; a test compares them."""


def find(
    model: str,
    target: Sequence[str],
    baseline: str,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    protect: Sequence[str] = (),
    validation_target: Sequence[str] | None = None,
    validation_baseline: str | None = None,
    load_options: Mapping[str, Any],
    format_options: Mapping[str, Any],
    rule_options: Mapping[str, Any],
    best_effort: bool = False,
    **options: Any,
) -> "Directions":
    """Load a model, find directions and save them.

    What is found is kept in `folder_of(out)` as it comes. Where an earlier search of the same inputs is complete there,
    the choice is made of it and no model is loaded.

    Args:
        model: as in `load`, with `load_options`.
        target, baseline, protect, validation_target, validation_baseline: prompt sets, as `load_prompts` reads them;
            several targets, and one set to score candidates on for each of them, where there are any.
        out: the file to write.
        overwrite: replace a file that is there, and begin anew.
        resume: go on with an earlier search, and replace the file that was chosen of it.
        format_options: of `ChatFormat`.
        rule_options: of `SelectionRule`.
        best_effort: as in `find_directions`.
        options: of `find_directions`.
    """
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} for {out.name}; make it first")
    check_free(out, overwrite or (resume and folder_of(out).is_dir()), is_directions)
    options = {**_DEFAULTS, **options}
    rule = SelectionRule(**rule_options)
    check_seed(options["seed"])
    check_method(options["method"])
    check_positions(options["positions"])
    check_dtype(load_options.get("dtype", "auto"))
    sets: dict[str, Any] = {
        "protect": [load_prompts(spec) for spec in protect],
        "validation_target": [load_prompts(spec) for spec in validation_target or ()],
        "validation_baseline": None if validation_baseline is None else load_prompts(validation_baseline),
    }
    train = [load_prompts(spec) for spec in target], load_prompts(baseline)
    sizes = {name: options[name] for name in ("n_train", "n_validation")}
    check_search(*train, sets["protect"], sets["validation_target"], sets["validation_baseline"], **sizes)
    # The imports take seconds, so that all that is told without them comes first.
    from weight_edit.directions.choice import chosen, rule_for
    from weight_edit.directions.find import find_directions, search_inputs
    from weight_edit.directions.find_folder import SearchFolder, found_earlier
    from weight_edit.directions.registry import finder_named
    from weight_edit.runtime.loading import load

    found_earlier(folder_of(out), resume=resume, overwrite=overwrite)
    finder = finder_named(options["method"])
    rule = rule_for(finder, rule)
    # A misspelt option is said before a large model is fetched and loaded.
    finder.settings(options["options"] or {})
    form = _format(model, load_options, format_options)
    source = resolve(model, revision=load_options.get("revision"), token=load_options.get("token"), edited=False)
    asked = search_inputs(
        model=fingerprint(source.path),
        dtype=str(load_options.get("dtype")),
        chat_format=dict(format_options),
        target=train[0],
        baseline=train[1],
        rule=rule,
        **sets,
        **options,
    )
    kept = SearchFolder.open(folder_of(out), asked, resume=resume, overwrite=overwrite)
    if kept.searched is not None and kept.complete(rule.layers(kept.searched.layers), rule.by == "cosmic"):
        found = chosen(kept, rule, best_effort=best_effort)
    else:
        loaded = load(model, **load_options)
        options = {**options, **sets, "rule": rule, "best_effort": best_effort}
        found = find_directions(loaded, *train, chat_format=form, scores=kept, **options)
    found.save(out)
    return found


def measure(
    model: str,
    *,
    against: str | None = None,
    sets: Mapping[str, str | None],
    load_options: Mapping[str, Any],
    format_options: Mapping[str, Any],
    overwrite: bool = False,
    **options: Any,
) -> "Evaluation":
    """Load a model, and its base before it where there is one, and evaluate it.

    Args:
        model: as in `load`, with `load_options`.
        against: the base: it answers the same prompts. It is loaded with the same options but for the revision, and
            dropped before the model is loaded.
        sets: prompt sets by their role, as `load_prompts` reads them.
        format_options: of `ChatFormat`.
        overwrite: replace a file of answers that is there.
        options: of `evaluate`.
    """
    if options.get("answers_path") is not None:
        check_free(options["answers_path"], overwrite, are_answers)
    prompts = {name: None if spec is None else load_prompts(spec) for name, spec in sets.items()}
    limit = options.pop("limit", None)
    prompts = {name: p and p.at_most(limit) for name, p in prompts.items()}
    if not any(prompts.values()):
        raise UsageError("nothing to evaluate on; give at least one of " + ", ".join(map(_option, sets)))
    check_dtype(load_options.get("dtype", "auto"))
    # The imports take seconds, so that all that is told without them comes first.
    from weight_edit.evaluation.evaluate import evaluate, first_token_logprobs
    from weight_edit.runtime.loading import load

    form = _format(model, load_options, format_options)
    logprobs = before = None
    if against is not None:
        answered = prompts["answered"]
        base_options = {**load_options, "revision": None}
        base_form = _format(against, base_options, format_options)
        base = load(against, **base_options)
        announce(f"the base, {base.source.public_name}")
        if answered is not None:
            logprobs = first_token_logprobs(base, answered, base_form)
        plain: dict[str, Any] = {**options, **prompts, "answers_path": None}
        before = evaluate(base, chat_format=base_form, **plain)
        del base
        announce("the edited model")
    loaded = load(model, **load_options)
    return evaluate(
        loaded,
        refused=prompts["refused"],
        answered=prompts["answered"],
        over_refused=prompts["over_refused"],
        harmless_looking=prompts["harmless_looking"],
        base_logprobs=logprobs,
        base=before,
        chat_format=form,
        **options,
    )


def _format(model: str, load_options: Mapping[str, Any], format_options: Mapping[str, Any]) -> "ChatFormat":
    """The chat format of a model whose weights are not there yet."""
    from weight_edit.runtime.loading import chat_format, check_source

    revision, token = load_options.get("revision"), load_options.get("token")
    source = resolve(model, revision=revision, token=token, weights=False, edited=False)
    trusted = bool(load_options.get("trust_remote_code"))
    check_source(source, device=load_options.get("device"), trust_remote_code=trusted)
    return chat_format(source, trust_remote_code=trusted, **format_options)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
