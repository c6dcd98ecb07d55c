"""The evaluation of a named model beside its base: the work of the verb `evaluate`."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from weight_edit.checkpoint.manifest import said_swapped
from weight_edit.checkpoint.whole_file import check_free
from weight_edit.errors import UsageError
from weight_edit.evaluation.answers_file import are_answers
from weight_edit.evaluation.backends import AUTO, VLLM, remarks_on
from weight_edit.evaluation.endpoint.endpoint import Endpoint
from weight_edit.evaluation.questions import KL_TOKENS, Questions, questions_of
from weight_edit.evaluation.registry import DEFAULT_JUDGES
from weight_edit.hub.calls import dataset_token
from weight_edit.runtime.adapters import check_adapter
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.options import FormatOptions, LoadOptions
from weight_edit.runtime.processes import from_first, joined
from weight_edit.utils.progress import announce, starting

if TYPE_CHECKING:
    from weight_edit.evaluation.loaders import Loader
    from weight_edit.evaluation.results import Evaluation


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
    text: str | None = None,
    kl_tokens: int = KL_TOKENS,
    backend: str = AUTO,
    answers_path: Path | None = None,
    overwrite: bool = False,
) -> "Evaluation":
    """Load a model, and its base before it if one is given, and evaluate them.

    Args:
        model: as in `load`, or on a server.
        base: what the model was edited from: it answers the same prompts. It is loaded with the same options but for
            the revision, and dropped before the model is loaded. It may be on a server, too. What is given on a
            server of ours is closed here.
        sets: prompt sets by their role (refused, answered, over_refused, harmless_looking), as `load_prompts` reads
            them.
        limit: at most so many prompts of each set.
        max_new_tokens, lengths, judges, text, kl_tokens, answers_path: as in `evaluate`.
        backend: what runs models that are named, "vllm" for both; others as `opened` gave them.
        overwrite: replace a file of answers that is there.

    Raises:
        UsageError: before torch is imported where the prompts, the judges, the dtype or the file of answers are wrong.
        UnsupportedError: as `load`.
    """
    if joined() is not None and (backend == VLLM or not all(isinstance(name, str | None) for name in (model, base))):
        raise UsageError(
            "what a server or vLLM runs is not shared by several processes: call this without the launcher"
        )

    def asked() -> Questions:
        if answers_path is not None:
            check_free(answers_path, overwrite, are_answers)
        for name in (model, base):
            # A typo in a name is told before prompt sets are downloaded.
            if isinstance(name, str):
                (load_options if name is model else load_options.of_base()).check_name(name)
        if load_options.adapter is not None:
            # Else it would be told when the base has given all its answers.
            check_adapter(load_options.adapter, token=load_options.token)
        with dataset_token(load_options.token):
            return questions_of(
                sets,
                text=text,
                limit=limit,
                max_new_tokens=max_new_tokens,
                lengths=lengths,
                judges=judges,
                kl_tokens=kl_tokens,
            )

    questions = from_first(asked, "prompts")
    check_dtype(load_options.dtype)
    if backend == VLLM and load_options.device is not None:
        raise UsageError("`device`: vLLM takes the GPUs of CUDA_VISIBLE_DEVICES; leave it out", option="device")
    if isinstance(model, Endpoint) and load_options.revision is not None:
        raise UsageError("`revision` is of a Hub model; a server has none, leave it out", option="revision")
    # The imports take seconds, so that all that is told without them comes first.
    with starting():
        from weight_edit.evaluation.evaluate import evaluate_in_turn

    loader = _vllm_loader if backend == VLLM else _loader
    load_model = loader(model, load_options, format_options, None if base is None else "the edited model")
    load_base = None
    if base is not None:
        load_base = loader(base, load_options.of_base(), format_options, "the base, {name}")
    swapped = said_swapped(base, model)
    notes = (f"{swapped}: what is called edited here is the base",) if swapped else ()
    for note in notes:
        # Before the answers, which take their time.
        announce(note)
    found = evaluate_in_turn(load_base, load_model, questions, answers_path=answers_path)
    return replace(found, notes=(*notes, *found.notes))


def _loader(
    named: str | Endpoint, load_options: LoadOptions, format_options: FormatOptions, words: str | None
) -> "Loader":
    """What loads a model by its name; what is wrong with its chat format is said before the weights are read.

    Args:
        words: what to announce once it is loaded, its name as `{name}`.

    Raises:
        UsageError, UnsupportedError: as `LoadOptions.chat_format`.
    """
    from weight_edit.evaluation.target import ModelTarget

    if isinstance(named, Endpoint):
        return lambda: closing(named)
    chat_format = load_options.chat_format(named, format_options)

    def load() -> AbstractContextManager[ModelTarget]:
        found = load_options.load(named)
        if words is not None:
            announce(words.format(name=found.source.public_name))
        return nullcontext(ModelTarget(found, chat_format, remarks=remarks_on(named)))

    return load


def _vllm_loader(
    named: str | Endpoint,
    load_options: LoadOptions,
    format_options: FormatOptions,
    words: str | None,
) -> "Loader":
    """What loads a model into vLLM by its name.

    Args:
        words: as in `_loader`.

    Raises:
        UsageError, UnsupportedError: as `LoadOptions.chat_format`.
    """
    from weight_edit.evaluation.vllm_target import VllmTarget

    if isinstance(named, Endpoint):
        return lambda: closing(named)
    chat_format = load_options.chat_format(named, format_options)

    def load() -> AbstractContextManager[VllmTarget]:
        found = VllmTarget.open(
            load_options.source(named),
            chat_format,
            dtype=load_options.dtype,
            trust_remote_code=load_options.trust_remote_code,
        )
        if words is not None:
            announce(words.format(name=found.public_name))
        return closing(found)

    return load
