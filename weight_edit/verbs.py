"""The verbs that load a model first: what `find` and `evaluate` of the command line do with names and files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.directions.choices import check_method, check_positions
from weight_edit.directions.samples import check_search
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UsageError
from weight_edit.prompts import load_prompts
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.sources import resolve

if TYPE_CHECKING:
    from weight_edit.directions.artifact import Directions
    from weight_edit.evaluation.evaluate import Evaluation
    from weight_edit.prompts import ChatFormat


def find(
    model: str,
    target: Sequence[str],
    baseline: str,
    out: Path,
    *,
    overwrite: bool = False,
    protect: Sequence[str] = (),
    validation_target: Sequence[str] | None = None,
    validation_baseline: str | None = None,
    load_options: Mapping[str, Any],
    format_options: Mapping[str, Any],
    rule_options: Mapping[str, Any],
    **options: Any,
) -> "Directions":
    """Load a model, find directions and save them.

    Args:
        model: as in `load`, with `load_options`.
        target, baseline, protect, validation_target, validation_baseline: prompt sets, as `load_prompts` reads them;
            several targets, and one set to score candidates on for each of them, where there are any.
        out: the file to write.
        overwrite: replace a file that is there.
        format_options: of `ChatFormat`.
        rule_options: of `SelectionRule`.
        options: of `find_directions`.
    """
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} for {out.name}; make it first")
    _check_free(out, overwrite)
    rule = SelectionRule(**rule_options)
    method = options.get("method", "mean-difference")
    check_method(method)
    check_positions(options.get("positions", "template"))
    check_dtype(load_options.get("dtype", "auto"))
    train = [load_prompts(spec) for spec in target], load_prompts(baseline)
    spared = [load_prompts(spec) for spec in protect]
    held_target = [load_prompts(spec) for spec in validation_target] if validation_target else None
    held_baseline = load_prompts(validation_baseline) if validation_baseline else None
    sizes = {name: options.get(name, default) for name, default in (("n_train", 128), ("n_validation", 32))}
    check_search(*train, spared, held_target, held_baseline, **sizes)
    # The imports take seconds, so that all that is told without them comes first.
    from weight_edit.directions.find import find_directions
    from weight_edit.directions.registry import finder_named
    from weight_edit.runtime.loading import load

    # A misspelt option is said before a large model is fetched and loaded.
    finder_named(method).settings(options.get("options") or {})
    form = _format(model, load_options, format_options)
    loaded = load(model, **load_options)
    found = find_directions(
        loaded,
        *train,
        protect=spared,
        validation_target=held_target,
        validation_baseline=held_baseline,
        format=form,
        rule=rule,
        **options,
    )
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
        against: the base; loaded with the same options but for the revision, and dropped before the model is loaded.
        sets: prompt sets by their role, as `load_prompts` reads them.
        format_options: of `ChatFormat`.
        overwrite: replace a file of answers that is there.
        options: of `evaluate`.
    """
    if options.get("answers_path") is not None:
        _check_free(options["answers_path"], overwrite)
    prompts = {name: None if spec is None else load_prompts(spec) for name, spec in sets.items()}
    limit = options.pop("limit", None)
    prompts = {name: p and p.at_most(limit) for name, p in prompts.items()}
    answered = prompts["answered"]
    if against is not None and answered is None:
        raise UsageError("--against measures the divergence on ordinary requests; give --answered PROMPTS too")
    if not any(prompts.values()):
        raise UsageError("nothing to evaluate on; give at least one of " + ", ".join(map(_option, sets)))
    check_dtype(load_options.get("dtype", "auto"))
    # The imports take seconds, so that all that is told without them comes first.
    from weight_edit.evaluation.evaluate import evaluate, first_token_logprobs
    from weight_edit.runtime.loading import load

    form = _format(model, load_options, format_options)
    logprobs = None
    if against is not None and answered is not None:
        base_options = {**load_options, "revision": None}
        base_form = _format(against, base_options, format_options)
        base = load(against, **base_options)
        logprobs = first_token_logprobs(base, answered, base_form)
        del base
    loaded = load(model, **load_options)
    return evaluate(
        loaded,
        refused=prompts["refused"],
        answered=prompts["answered"],
        over_refused=prompts["over_refused"],
        harmless_looking=prompts["harmless_looking"],
        base_logprobs=logprobs,
        format=form,
        **options,
    )


def _format(model: str, load_options: Mapping[str, Any], format_options: Mapping[str, Any]) -> "ChatFormat":
    """The chat format of a model whose weights are not there yet."""
    from weight_edit.runtime.loading import chat_format

    source = resolve(model, revision=load_options.get("revision"), token=load_options.get("token"), weights=False)
    return chat_format(source, trust_remote_code=bool(load_options.get("trust_remote_code")), **format_options)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; choose another file or pass --overwrite")
