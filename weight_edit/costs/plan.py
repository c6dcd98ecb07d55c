"""The plan of a find and of what follows: what it reads, computes and holds, and how long that takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.gguf.parts import gguf_files
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.costs.amounts import Range
from weight_edit.costs.memory_need import MemoryNeed, memory_need
from weight_edit.costs.model_size import ModelSize, model_size
from weight_edit.costs.rates import Rates, rates_of
from weight_edit.costs.step_costs import StepCost, step_costs
from weight_edit.costs.workload import Lengths, Workload
from weight_edit.directions.choice import rule_for
from weight_edit.directions.names import check_answering, check_method, check_positions, present_filter
from weight_edit.directions.registry import finder_named
from weight_edit.directions.samples import draw_prompts, more_prompts
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UsageError
from weight_edit.hub.headers import with_headers
from weight_edit.hub.source import Named, Source, resolve
from weight_edit.prompts.chat import SENTINELS, ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.loading import chat_format, read_config, usable_device
from weight_edit.tables.amounts import count
from weight_edit.tables.shown import Shown
from weight_edit.utils.progress import bar

TOKENS = 64
"""Tokens of a prompt, template included, where neither prompts nor a number are given."""

POSITIONS = 5
"""Tokens that a chat template puts behind a prompt, where there is no tokenizer to ask."""

WIDER = 1.5
"""By how much float32 has to be faster than a narrower dtype, to be recommended: weights take twice the memory."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, kw_only=True)
class CostPlan(Shown):
    """What a find, a bake, a verification and an evaluation of a model cost.

    Attributes:
        model: what the user called it.
        size: of the model, and the arithmetic of a token.
        work: the prompts and settings that were planned for.
        steps: in the order in which they are taken.
        device: where the model is.
        memory: at the peak of the find, of each process.
        rates: given or measured; None where neither, so that no step has seconds.
        notes: sentences on what is estimated.
    """

    model: str
    size: ModelSize
    work: Workload
    steps: tuple[StepCost, ...]
    device: str
    memory: MemoryNeed
    rates: Rates | None
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        flops = f"{self.flops.low:.2g} to {self.flops.high:.2g} FLOPs"
        return f"CostPlan({self.model!r}, {count(self.size.parameters)} parameters, {flops})"

    @property
    def flops(self) -> Range:
        """Of all steps together."""
        return _sum([step.flops for step in self.steps])

    @property
    def bytes_read(self) -> Range:
        """Of all steps together."""
        return _sum([step.bytes_read for step in self.steps])

    @property
    def seconds(self) -> Range | None:
        """Of all steps together; None where no rate is known."""
        known = [step.seconds for step in self.steps if step.seconds is not None]
        return _sum(known) if len(known) == len(self.steps) else None

    def step(self, name: str) -> StepCost:
        """The step of a name.

        Raises:
            LookupError: it is not planned.
        """
        found = {step.name: step for step in self.steps}
        return found[name]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        work = self.work
        return {
            "model": self.model,
            "estimate": True,
            "size": self.size.to_dict(),
            "prompts": {
                "target_tokens": work.target.mean,
                "baseline_tokens": work.baseline.mean,
                "prefix_tokens": work.prefix,
                "measured": work.measured,
                "n_train": work.n_train,
                "n_validation": work.n_validation,
                "positions": work.positions,
            },
            "candidates": {"low": work.candidates[0], "high": work.candidates[1]},
            "device": self.device,
            "offload": work.offload,
            "processes": work.processes,
            "steps": [step.to_dict() for step in self.steps],
            "total": {
                "flops": self.flops.to_dict(),
                "bytes_read": self.bytes_read.to_dict(),
                "seconds": None if self.seconds is None else self.seconds.to_dict(),
            },
            "memory": self.memory.to_dict(),
            "rates": None if self.rates is None else self.rates.to_dict(),
            "notes": list(self.notes),
        }


def plan_costs(
    model: Named,
    *,
    target: PromptSet | str | Path | Sequence[PromptSet | str | Path] = (),
    baseline: PromptSet | str | Path | None = None,
    tokens: int | None = None,
    prefix_tokens: int | None = None,
    n_train: int = 128,
    n_validation: int = 32,
    n_more: int | None = None,
    method: str = "mean-difference",
    positions: str = "template",
    candidates: int | None = None,
    rule: SelectionRule | None = None,
    filter_prompts: str = "auto",
    tokens_from: str = "answers",
    n_answers: int = 32,
    max_new_tokens: int = 32,
    confirm: int | None = None,
    trials: int = 0,
    n_evaluate: int = 100,
    offload: bool = False,
    processes: int = 1,
    dtype: str = "auto",
    device: str | None = None,
    calibrate: bool = True,
    flops: float | None = None,
    disk_rate: float | None = None,
    system: str | None = None,
    template: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    thinking: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> CostPlan:
    """Plan what a find and what follows cost: bytes read, FLOPs, peak memory, seconds; nothing of it is run.

    The config alone suffices: parameters and arithmetic are those of the model built without numbers. No weights are
    fetched or read, but for the time of reading a part of a file where the model is a folder and `calibrate` is set.

    Args:
        model: a folder, which may hold config.json alone, a Hub id, "organism", or a loaded model.
        target: sets of target prompts; their lengths are counted with the model's tokenizer.
        baseline: likewise; those of the targets where None.
        tokens: of a prompt, template included, where no prompts are given; 64 where None.
        prefix_tokens: with which all prompts begin, run once for each edit; those of the chat template where None.
        n_train, n_validation, n_more, positions, filter_prompts, tokens_from, n_answers, max_new_tokens, confirm: as
            in `find_directions`; of sets that hold fewer prompts, those that it would draw of them are counted.
        method: name of a finder: one candidate at each position and layer, or where it chooses places by itself, one
            to so many.
        candidates: how many there are, instead.
        rule: its `max_layer_fraction` says which layers are scored.
        trials: of a search; each asks for the first token after the validation prompts under one edit.
        n_evaluate: prompts of each of two sets that `evaluate` has the base and the edited model answer; 0 for none.
        offload: blocks lie on disk, and each is read once for all prompts and edits of a request.
        processes: that share the prompts and edits, each with a device and a disk as fast as those here.
        dtype, device: as in `load`; with `flops`, the device may be one that is not here, such as "cuda".
        calibrate: measure the rates that are not given, in about a second.
        flops: that the device computes in a second; disk_rate: bytes that the disk reads in a second.
        system, template, template_args, thinking: see `ChatFormat`.
        revision, token, trust_remote_code: as in `load`.

    Raises:
        UsageError: no such model, prompts or method; prompts without a tokenizer to count them with, or too few for a
            find; a wrong number.
        UnsupportedError: the architecture is not understood.
    """
    check_dtype(dtype)
    check_method(method)
    check_positions(positions)
    check_answering(present_filter(filter_prompts), tokens_from, "ablate")
    filters = filter_prompts
    if filters == "auto":
        filters = "answers" if tokens_from == "answers" else "first-token"
    for name, value in (("tokens", tokens), ("candidates", candidates), ("n_answers", n_answers)):
        if value is not None and value < 1:
            raise UsageError(f"`{name}={value}`: must be at least 1", option=name)
    place = _place(device, planned=flops is not None)
    given = [target] if isinstance(target, PromptSet | str | Path) else list(target)
    sets = [load_prompts(each) for each in given]
    other = None if baseline is None else load_prompts(baseline)
    more = more_prompts(n_more, n_train)
    drawn = [
        _Drawn.of(role, prompts, n_train=n_train, n_validation=n_validation, n_more=more)
        for role, prompts in (*(("target", each) for each in sets), ("baseline", other))
        if prompts is not None
    ]
    n_train, n_validation, more = _mean_drawn(drawn, n_train, n_validation, more)
    with with_headers(model, revision=revision, token=token) as (source, checkpoint), bar("counting"):
        config = read_config(source, trust_remote_code=trust_remote_code)
        asked = other is not None or bool(sets)
        files = _with_tokenizer(source, model, revision, token, needed=asked)
        chat = None
        if files is not None:
            chat = chat_format(
                files,
                system=system,
                template=template,
                template_args=template_args,
                thinking=thinking,
                trust_remote_code=trust_remote_code,
            )
        texts = [prompts for prompts in (_together(sets), () if other is None else other.prompts) if prompts]
        lengths = [_lengths(prompts, chat) for prompts in texts]
        if not lengths:
            lengths = [Lengths.all_alike(TOKENS if tokens is None else tokens)]
        longest = max(each.mean for each in lengths)
        size = model_size(
            config, checkpoint, dtype=dtype, length=max(8, round(longest)), trust_remote_code=trust_remote_code
        )
        work = _workload(
            size,
            lengths=(lengths[0], lengths[-1]),
            chat=chat,
            rule=rule_for(finder_named(method), rule),
            everywhere=finder_named(method).everywhere,
            positions=positions,
            candidates=candidates,
            prefix=prefix_tokens,
            settings={
                "measured": asked,
                "targets": max(1, len(sets)),
                "n_train": n_train,
                "n_validation": n_validation,
                "n_more": more,
                "answers": _answered(filters, tokens_from, n_train + n_validation, n_answers),
                "first_tokens": n_train + n_validation if filters == "first-token" else n_validation,
                "max_new_tokens": max_new_tokens,
                "confirm": confirm or 0,
                "trials": trials,
                "n_evaluate": n_evaluate,
                "offload": offload,
                "processes": processes,
            },
        )
        rates = rates_of(
            size, device=place, calibrate=calibrate, flops=flops, disk=disk_rate, file=_readable(source, checkpoint)
        )
    return CostPlan(
        model=source.name,
        size=size,
        work=work,
        steps=tuple(step_costs(size, work, rates)),
        device=place,
        memory=memory_need(size, work, place),
        rates=rates,
        notes=(*_fewer(drawn), *_wider(size, rates), *_notes(size, work, chat, config, method)),
    )


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """How many prompts of a set a find would draw.

    Attributes:
        prompts: the set.
        fewer: whether these are fewer than it was to draw.
    """

    prompts: PromptSet
    train: int
    validation: int
    more: int
    fewer: bool

    @classmethod
    def of(cls, role: str, prompts: PromptSet, *, n_train: int, n_validation: int, n_more: int) -> "_Drawn":
        """Those of a set.

        Raises:
            UsageError: it holds too few.
        """
        train, validation = n_train, n_validation
        # Wrong numbers are told by the workload.
        if n_train > 0 and n_validation > 0:
            parts = draw_prompts(role, prompts, None, n_train=n_train, n_validation=n_validation)
            train, validation = map(len, parts)
        left = max(0, len(prompts) - train - validation)
        fewer = train + validation < n_train + n_validation
        return cls(prompts=prompts, train=train, validation=validation, more=min(n_more, left), fewer=fewer)


def _mean_drawn(drawn: Sequence[_Drawn], n_train: int, n_validation: int, n_more: int) -> tuple[int, int, int]:
    """Training, validation and more prompts of each set, on average; as asked where no sets are given."""
    if not drawn:
        return n_train, n_validation, n_more
    numbers = [(each.train, each.validation, each.more) for each in drawn]
    train, validation, more = (ceil(sum(column) / len(drawn)) for column in zip(*numbers, strict=True))
    return train, validation, more


def _fewer(drawn: Sequence[_Drawn]) -> list[str]:
    """The note on sets that hold fewer prompts than a find would draw."""
    few = [
        f"{each.prompts.name} holds {len(each.prompts)} prompts, of which {each.train} train and {each.validation} "
        "validate"
        for each in drawn
        if each.fewer
    ]
    return ["; ".join(few)] if few else []


def _wider(size: ModelSize, rates: Rates | None) -> list[str]:
    """The note where the processor is much faster in float32 than in the dtype of the model."""
    if rates is None or rates.float32_flops is None or rates.float32_flops < WIDER * rates.flops:
        return []
    return [
        f"this processor is {rates.float32_flops / rates.flops:.1f} times as fast in float32 as in {size.dtype}; give "
        f"float32 as the dtype, here and to what follows, where {4 * size.parameters / 1e9:.2g} GB of weights fit"
    ]


def _sum(ranges: Sequence[Range]) -> Range:
    return sum(ranges, start=Range(0.0, 0.0))


def _place(device: str | None, *, planned: bool) -> str:
    """The device that is planned for, "auto" being the best one here.

    Args:
        planned: its rate is given, so that nothing is measured on it.
    """
    if planned and device is not None and device.partition(":")[0] in ("cuda", "mps"):
        return device
    try:
        return usable_device(None if device == "auto" else device)
    except UsageError as error:
        raise UsageError(
            f"{error}, or give its rate with `flops` and `disk_rate`", option=("flops", "disk_rate")
        ) from error


def _together(sets: Sequence[PromptSet]) -> tuple[str, ...]:
    return tuple(prompt for some in sets for prompt in some.prompts)


def _with_tokenizer(
    source: Source, model: Named, revision: str | None, token: str | None, *, needed: bool
) -> Source | None:
    """The files of a model with its tokenizer; None where it has none.

    Raises:
        UsageError: it has none, and prompts are to be counted with it.
    """
    if source.on_hub:
        source = resolve(model, revision=source.revision or revision, token=token, weights=False)
    if gguf_files(source.path) is not None:
        return source
    if any((source.path / name).is_file() for name in TOKENIZER_FILES):
        return source
    if needed:
        raise UsageError(
            f"{source.name} has no tokenizer to count the prompts' tokens with; leave the prompts out, and give their "
            "mean length as `tokens`",
            option="tokens",
        )
    return None


def _lengths(prompts: Sequence[str], chat: ChatFormat | None) -> Lengths:
    assert chat is not None
    return Lengths.of([len(chat.encode_opened(prompt)) for prompt in prompts])


def _prefix(chat: ChatFormat) -> int:
    """The tokens that a chat template puts in front of every prompt."""
    first, *others = (chat.encode(sentinel) for sentinel in SENTINELS)
    shortest = min(map(len, (first, *others)))
    same = (all(other[place] == first[place] for other in others) for place in range(shortest))
    return next((place for place, alike in enumerate(same) if not alike), shortest)


def _answered(filters: str, tokens_from: str, drawn: int, n_answers: int) -> int:
    """Prompts of each set that are answered: all where answers filter, else as many as tokens are found from."""
    if filters == "answers":
        return drawn
    return min(drawn, n_answers) if tokens_from == "answers" else 0


def _workload(
    size: ModelSize,
    *,
    lengths: tuple[Lengths, Lengths],
    chat: ChatFormat | None,
    rule: SelectionRule,
    everywhere: bool,
    positions: str,
    candidates: int | None,
    prefix: int | None,
    settings: dict[str, Any],
) -> Workload:
    suffix = POSITIONS if chat is None else len(chat.suffix)
    places = suffix if positions == "template" else 1
    allowed = rule.layers(size.layers)
    # Behind the instruction all prompts have the template's tokens, which nothing tells apart before the first block.
    most = max(1, places * (allowed if positions == "all" else allowed - 1))
    count = (candidates, candidates) if candidates is not None else (most if everywhere else 1, most)
    if prefix is None:
        # A number of tokens that somebody gives may be shorter than the template.
        shortest = min(each.mean for each in lengths)
        prefix = 0 if chat is None else min(_prefix(chat), int(shortest) - 1)
    return Workload(
        target=lengths[0],
        baseline=lengths[1],
        prefix=prefix,
        positions=places,
        candidates=count,
        allowed=allowed,
        induces=rule.min_induce is not None and not rule.without_tokens,
        **settings,
    )


def _readable(source: Source, checkpoint: Checkpoint | None) -> Path | None:
    """A shard of the model on this disk, whose reading can be timed."""
    if checkpoint is None or source.on_hub:
        return None
    return max(
        (checkpoint.path / shard for shard in checkpoint.shards), key=lambda file: file.stat().st_size, default=None
    )


def _notes(size: ModelSize, work: Workload, chat: ChatFormat | None, config: Any, method: str) -> list[str]:
    found = []
    if not size.counted:
        found.append(
            "estimate: this architecture does not run without numbers, so that its arithmetic is that of its matrices, "
            "heads and experts as config.json has them"
        )
    if not size.stored and getattr(config, "quantization_config", None) is not None:
        found.append("estimate: the weights are quantised, and without their headers count as if they were not")
    if not work.measured:
        found.append(f"prompts of {work.target.mean:.0f} tokens are assumed; give prompts, or their mean length")
    if chat is None:
        found.append(
            f"no tokenizer is there: {work.positions} positions behind a prompt and {work.prefix} tokens in front of "
            "all are assumed"
        )
    if work.candidates[0] != work.candidates[1]:
        found.append(f"{method} chooses places by itself; what it computes before its candidates is not counted")
    if work.processes > 1:
        found.append("each process has a device and a disk of its own, as fast as those here")
    return found
