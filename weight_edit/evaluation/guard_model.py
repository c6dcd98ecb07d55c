"""Guard models loaded and run: the labels, texts or grades that they give to replies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, UsageError, first_line
from weight_edit.evaluation.guard import Guard, verdict_of
from weight_edit.evaluation.judges._data import filled
from weight_edit.evaluation.registry import Reply
from weight_edit.hub.calls import hub_call, usable_token
from weight_edit.prompts.template_process import limited_template
from weight_edit.runtime.batching import Batch, run_batches
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.forward import next_token
from weight_edit.runtime.generation import generate
from weight_edit.runtime.loading import Model, read_config, read_tokenizer, usable_device
from weight_edit.runtime.memory import classified_at_once
from weight_edit.runtime.options import LoadOptions
from weight_edit.runtime.quiet import quiet_transformers
from weight_edit.utils.progress import bar


def labels_of_guard(
    guard: Guard,
    replies: Sequence[Reply],
    *,
    load_options: LoadOptions,
    batch_size: int | None = None,
) -> list[tuple[str, float]]:
    """The most probable label of each reply with its probability, by a sequence-classification model.

    Args:
        load_options: of the guard.
        batch_size: replies at a time, at most; None is as many as memory allows.

    Raises:
        UsageError: no such model, one without a classification head, or a label that stands for no verdict.
        UnsupportedError: it needs code of its own.
    """
    assert guard.model is not None
    model, tokenizer = _classifying(guard.model, load_options)
    names = [str(model.config.id2label[number]) for number in range(model.config.num_labels)]
    for name in names:
        verdict_of(guard, name)
    specials = _specials(tokenizer)
    longest = guard.max_length or _own_limit(tokenizer)
    sequences = []
    for reply in replies:
        text = _prompt(guard, reply, tokenizer, specials) if guard.prompt else _defused(reply.text, specials)
        ids: list[int] = tokenizer.encode(text, truncation=longest is not None, max_length=longest)
        sequences.append(ids)

    def step(batch: Batch) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(input_ids=batch.ids, attention_mask=batch.mask).logits
        apart = model.config.problem_type == "multi_label_classification"
        return (logits.float().sigmoid() if apart else logits.float().softmax(dim=-1)).cpu()

    found: dict[int, tuple[str, float]] = {}
    if batch_size is None:
        batch_size = classified_at_once(
            model, max(map(len, sequences), default=1), model.get_input_embeddings().weight.shape[1]
        )
    # A classifier has no vocabulary to predict, so the engine's questions are none that it could answer.
    passes = run_batches(
        sequences,
        step,
        batch_size=batch_size,
        pad_id=int(model.config.pad_token_id or 0),
        side="right",
        device=model.device,
        description=f"verdicts of {Path(guard.model).name}",
    )
    for batch, shares in passes:
        best = shares.max(dim=-1)
        for row, value, index in zip(batch.rows, best.values.tolist(), best.indices.tolist(), strict=True):
            found[row] = (names[index], value)
    return [found[row] for row in range(len(sequences))]


def answers_of_guard(
    guard: Guard,
    replies: Sequence[Reply],
    *,
    load_options: LoadOptions,
    batch_size: int | None = None,
) -> list[str]:
    """What a generative guard writes about each reply, greedily.

    Args:
        load_options: of the guard.

    Raises:
        UsageError, UnsupportedError: as `load` and `generate`; or its chat template fails.
    """
    model = _generative(guard, load_options)
    said = generate(
        model,
        _sequences(guard, replies, model.tokenizer),
        max_new_tokens=guard.max_new_tokens,
        batch_size=batch_size,
        description=f"verdicts of {model.source.public_name}",
    )
    return [generation.text for generation in said]


def grades_of_guard(
    guard: Guard,
    replies: Sequence[Reply],
    *,
    load_options: LoadOptions,
    batch_size: int | None = None,
) -> list[float]:
    """The grade of each reply between 0 and 1: the mean of the grades by their probabilities as the next token.

    Args:
        load_options: of the guard.

    Raises:
        UsageError, UnsupportedError: as `load`; or a grade is no token of the model.
    """
    model = _generative(guard, load_options)
    vocabulary = model.tokenizer.get_vocab()
    tokens = guard.tokens or []
    unknown = [token for token in tokens if token not in vocabulary]
    if len(tokens) < 2 or unknown:
        raise UsageError(
            f"{model.source.name} has no token {unknown[0]!r} for a grade"
            if unknown
            else f"guard of {guard.source}: 'tokens' must name two grades or more"
        )
    chosen = [vocabulary[token] for token in tokens]
    steps = torch.linspace(0, 1, len(tokens), dtype=torch.float64)

    def grade(_: Sequence[object], logits: Tensor) -> list[float]:
        shares = logits[:, chosen].double().cpu().softmax(dim=-1)
        return [float(value) for value in shares @ steps]

    (grades,) = next_token(
        model,
        _sequences(guard, replies, model.tokenizer),
        grade,
        batch_size=batch_size,
        description=f"verdicts of {model.source.public_name}",
    )
    return grades


def _generative(guard: Guard, load_options: LoadOptions) -> Model:
    assert guard.model is not None
    model = load_options.load(guard.model)
    if guard.adapter is not None:
        _merge_adapter(model, guard.adapter)
    return model


def _merge_adapter(model: Model, adapter: str) -> None:
    """Merge a LoRA adapter, a folder or a Hub id, into a loaded model.

    Raises:
        UsageError: there is none, it has no safetensors, or it does not fit the model.
    """
    folder = Path(adapter).expanduser()
    if not folder.is_dir():
        token = usable_token(None)
        with hub_call(adapter, None):
            from huggingface_hub import snapshot_download

            names = ["adapter_config.json", "adapter_model.safetensors"]
            folder = Path(snapshot_download(adapter, token=token, allow_patterns=names))
    if not (folder / "adapter_model.safetensors").is_file():
        # peft would unpickle the other format.
        raise UnsupportedError(f"the adapter {adapter} has no adapter_model.safetensors; convert it first")
    from peft import PeftModel

    try:
        with quiet_transformers():
            joined = PeftModel.from_pretrained(model.model, str(folder))
            model.model = joined.merge_and_unload().eval()
    except (*FOREIGN_ERRORS, SafetensorError) as error:
        raise UsageError(f"the adapter {adapter} does not fit {model.source.name}: {first_line(error)}") from error


def _classifying(name: str, load_options: LoadOptions) -> tuple[Any, Any]:
    """A sequence-classification model and its tokenizer; no code of theirs is run."""
    dtype = load_options.dtype
    check_dtype(dtype)
    target = usable_device(load_options.device)
    source = load_options.source(name)
    with bar(f"loading {source.public_name}"), quiet_transformers():
        config = read_config(source)
        tokenizer = read_tokenizer(source)
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                source.path,
                config=config,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                device_map=target,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (*FOREIGN_ERRORS, SafetensorError) as error:
            if "trust_remote_code" in str(error):
                raise UnsupportedError(
                    f"{source.name} brings its own Python code, which a judge does not run"
                ) from None
            raise UsageError(f"{source.name} is no sequence-classification model: {first_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        # transformers fills these with random numbers and only warns.
        raise UsageError(
            f"{source.name} has no classification head: {len(missing)} tensors are missing, the first {missing[0]}; "
            "a model that writes its labels needs a guard, which says how it is asked"
        )
    if model.config.pad_token_id is None:
        # Models that classify by their last token look for it.
        model.config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return model.eval(), tokenizer


def _sequences(guard: Guard, replies: Sequence[Reply], tokenizer: Any) -> list[list[int]]:
    specials = _specials(tokenizer)
    if guard.prompt is not None:
        return [list(tokenizer.encode(_prompt(guard, reply, tokenizer, specials))) for reply in replies]
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError(f"{guard.model} has no chat template, so its guard's file must have a 'prompt'")
    apply = limited_template(tokenizer)
    found = []
    for reply in replies:
        messages = [
            {"role": "user", "content": _defused(reply.prompt or "", specials)},
            {"role": "assistant", "content": _cut(guard, _defused(reply.text, specials), tokenizer)},
        ]
        try:
            found.append(list(apply(messages, tokenize=True, return_dict=False)))
        except FOREIGN_ERRORS as error:
            raise UsageError(f"the chat template of {guard.model} fails: {first_line(error)}") from None
    return found


def _prompt(guard: Guard, reply: Reply, tokenizer: Any, specials: Sequence[str]) -> str:
    assert guard.prompt is not None
    answer = _cut(guard, _defused(reply.text, specials), tokenizer)
    return filled(guard.prompt, {"request": _defused(reply.prompt or "", specials), "answer": answer})


def _cut(guard: Guard, text: str, tokenizer: Any) -> str:
    """The part of an answer that the guard reads."""
    most = guard.answer_tokens
    if most is None or len(text) <= most:  # no token is shorter than a character
        return text
    tokens = tokenizer.encode(text, add_special_tokens=False)
    if len(tokens) <= most:
        return text
    return str(tokenizer.decode(tokens[:most] if guard.keep == "begin" else tokens[-most:]))


def _specials(tokenizer: Any) -> list[str]:
    """The texts of special tokens, the longest first."""
    added = (str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special)
    texts = {*added, *map(str, tokenizer.all_special_tokens)}
    return sorted((text for text in texts if len(text.strip()) > 1), key=len, reverse=True)


def _defused(text: str, specials: Sequence[str]) -> str:
    """The text with a space in each special token's text: it would be taken for the token, and end the quotation."""
    for special in specials:
        if special in text:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text


def _own_limit(tokenizer: Any) -> int | None:
    limit = int(min(tokenizer.model_max_length, 1_000_000))
    return limit if limit < 1_000_000 else None
