"""The evaluation of a named model beside its base: the work of the verb `evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.checkpoint.whole_file import check_free
from weight_edit.errors import UsageError
from weight_edit.evaluation.answers_file import are_answers
from weight_edit.evaluation.endpoint.endpoint import Endpoint
from weight_edit.evaluation.lengths import answer_lengths, longest
from weight_edit.evaluation.registry import DEFAULT_JUDGES, judge_specs
from weight_edit.hub.calls import dataset_token
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.options import FormatOptions, LoadOptions
from weight_edit.utils.progress import announce, starting

if TYPE_CHECKING:
    from weight_edit.evaluation.evaluate import Evaluation
    from weight_edit.runtime.loading import Model


def evaluate_against(
    model: str | Endpoint,
    base: str | Endpoint | None = None,
    *,
    sets: Mapping[str, str | None],
    load_options: LoadOptions,
    format_options: FormatOptions,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    lengths: str | Sequence[int] | None = None,
    judges: Sequence[str] = DEFAULT_JUDGES,
    answers_path: Path | None = None,
    overwrite: bool = False,
) -> "Evaluation":
    """Load a model, and its base before it if one is given, and evaluate them.

    Args:
        model: as in `load`, or on a server.
        base: what the model was edited from: it answers the same prompts. It is loaded with the same options but for
            the revision, and dropped before the model is loaded. It may be on a server, too.
        sets: prompt sets by their role (refused, answered, over_refused, harmless_looking), as `load_prompts` reads
            them.
        limit: at most so many prompts of each set.
        max_new_tokens, lengths, judges, answers_path: as in `evaluate`.
        overwrite: replace a file of answers that is there.

    Raises:
        UsageError: before torch is imported where the prompts, the judges, the dtype or the file of answers are wrong.
        UnsupportedError: as `load`.
    """
    if answers_path is not None:
        check_free(answers_path, overwrite, are_answers)
    for name in (model, base):
        # A typo in a name is told before prompt sets are downloaded.
        if isinstance(name, str):
            (load_options if name is model else load_options.of_base()).check_name(name)
    with dataset_token(load_options.token):
        read = {name: None if spec is None else load_prompts(spec) for name, spec in sets.items()}
    prompts: dict[str, Any] = {name: some.at_most(limit) for name, some in read.items() if some is not None}
    if not any(prompts.values()):
        names = ", ".join(f"`{name}`" for name in sets)
        raise UsageError(f"nothing to evaluate on; give at least one of {names}", option=tuple(sets))
    specs = judge_specs(judges)
    lengths = answer_lengths(lengths)
    max_new_tokens = longest(max_new_tokens, lengths)
    check_dtype(load_options.dtype)
    # The imports take seconds, so that all that is told without them comes first.
    with starting():
        from weight_edit.evaluation.evaluate import evaluate, evaluate_in_turn

    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "lengths": lengths,
        "judges": specs,
        "answers_path": answers_path,
    }
    if isinstance(model, Endpoint) or isinstance(base, Endpoint):
        if isinstance(model, Endpoint) and load_options.revision is not None:
            raise UsageError("`revision` is of a Hub model; a server has none, leave it out", option="revision")
        options = load_options.of_base() if isinstance(model, Endpoint) else load_options
        name = base if isinstance(model, Endpoint) else model
        if isinstance(name, str):
            # What is wrong with the format is said before the weights are read.
            settings["chat_format"] = options.chat_format(name, format_options)
            local = options.load(name)
        return evaluate(
            model if isinstance(model, Endpoint) else local,
            against=local if isinstance(base, str) else base,
            **prompts,
            **settings,
        )
    settings["chat_format"] = load_options.chat_format(model, format_options)
    if base is None:
        return evaluate(load_options.load(model), **prompts, **settings)
    base_options = load_options.of_base()

    def load_base() -> "Model":
        found = base_options.load(base)
        announce(f"the base, {found.source.public_name}")
        return found

    def load_edited() -> "Model":
        announce("the edited model")
        return load_options.load(model)

    base_format = base_options.chat_format(base, format_options)
    return evaluate_in_turn(load_base, load_edited, prompts, base_format=base_format, **settings)
