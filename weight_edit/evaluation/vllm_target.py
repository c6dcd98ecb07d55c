"""A model that an installed vLLM runs, as a target of `evaluate`.

Prompts go in as tokens, so that the chat template is applied here, and tokens come out, which are read as those of a
model that transformers runs. Written after the sources of vLLM 0.33 (`vllm/entrypoints/llm.py`, `sampling_params.py`,
`outputs.py`), which has no part here but what is called by name.
"""

import gc
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from weight_edit.errors import FOREIGN_ERRORS, UsageError, VerificationError, first_line
from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.chat_target import ChatTarget
from weight_edit.evaluation.divergence import divergence
from weight_edit.evaluation.first_token import OPENED, bounded_divergence, top_tokens
from weight_edit.evaluation.known_answers import known_tokens, thoughts_kept
from weight_edit.evaluation.loss import Nats, nats_of
from weight_edit.evaluation.probabilities import BaseLogprobs, Probabilities
from weight_edit.evaluation.questions import Questions
from weight_edit.evaluation.replies import spoken_of
from weight_edit.evaluation.spoken import Spoken
from weight_edit.evaluation.text_loss import TEXT_TOKENS, TextLoss, beside_base, text_loss_of, text_tokens
from weight_edit.hub.source import Source
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.prompts.thought_format import ThoughtFormat
from weight_edit.runtime.generation import Generation, end_ids
from weight_edit.runtime.loading import read_config
from weight_edit.utils.extras import need
from weight_edit.utils.progress import Bar, bar

ALONG = (
    "the divergence over the base's answers, with their cross-entropy, is missing: it is measured with "
    "`backend=transformers`"
)
_ROWS = 8  # prompts whose whole distributions vLLM holds at once, as Python numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class VllmTarget(ChatTarget):
    """A model in vLLM and the format of its prompts; `close` gives the GPU's memory back.

    Attributes:
        engine: a `vllm.LLM`.
        library: the module `vllm`.
        name: the model's name in results.
        chat: how prompts become tokens.
        ends: the tokens that end an answer.
    """

    engine: Any
    library: Any
    name: str
    chat: ChatFormat
    ends: frozenset[int]
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(
        cls,
        source: Source,
        chat: ChatFormat,
        *,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        **settings: Any,
    ) -> "VllmTarget":
        """A model loaded into vLLM.

        Args:
            source: its files, on this machine.
            dtype: as in `load`. "auto" is what the checkpoint says; vLLM's own "auto" halves float32.
            settings: of `vllm.LLM`, such as `gpu_memory_utilization`, `max_model_len`, `tensor_parallel_size`.

        Raises:
            UsageError: vLLM is not installed, or cannot load the model.
        """
        need("vllm", "`backend=vllm`", "backend")
        config = read_config(source, trust_remote_code=trust_remote_code)
        stored = getattr(config, "dtype", None)
        if dtype == "auto" and stored is not None:
            dtype = str(stored).removeprefix("torch.")
        # Before the import: stdout is one JSON document.
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        with _told(source.public_name), bar(f"loading {source.public_name} into vLLM"):
            library = import_module("vllm")
            engine = library.LLM(
                model=str(source.path),
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                seed=0,
                # Whole distributions of first tokens are asked for, the settings of the checkpoint's author are not.
                max_logprobs=-1,
                generation_config="vllm",
                **settings,
            )
        vocabulary = int(engine.model_config.get_vocab_size())
        ends = end_ids(_named_ends(source.path, config), chat.tokenizer, vocabulary)
        return cls(engine=engine, library=library, name=source.public_name, chat=chat, ends=ends)

    def close(self) -> None:
        """Stop the engine and give its memory back; no question can be asked then."""
        core = getattr(getattr(self.engine, "llm_engine", None), "engine_core", None)
        if core is not None:
            core.shutdown()
        object.__setattr__(self, "engine", None)
        gc.collect()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    @property
    def public_name(self) -> str:
        """Its name in results."""
        return self.name

    def spoken(
        self, prompts: Sequence[str], *, max_new_tokens: int, lengths: Sequence[int], description: str | None
    ) -> list[Spoken]:
        """The greedy answers to prompts, in their order, each also cut to its first so many tokens.

        Raises:
            UsageError: vLLM fails, on a prompt that is too long for instance.
        """
        asked = [self.chat.encode(prompt) for prompt in prompts]
        outputs = self._ask(
            asked, description, max_tokens=max_new_tokens, stop_token_ids=sorted(self.ends), skip_special_tokens=False
        )
        said = [self._generation(output.outputs[0]) for output in outputs]
        return [spoken_of(self.chat, *pair, lengths) for pair in zip(prompts, said, strict=True)]

    def probabilities(self, questions: Questions, base: BaseLogprobs | None) -> Probabilities:
        """Losses of known answers and of texts, and the first token's divergence from a base.

        Raises:
            UsageError: the base has other prompts or another vocabulary, or vLLM fails.
            VerificationError: a value is not finite.
        """
        losses = {name: self._nats(prompts, self.chat) for name, prompts in questions.sets.items()}
        text = self._text(questions)
        if text is not None and base is not None:
            text = beside_base(text, base.text)
        answered = questions.answered
        if base is None or answered is None:
            return Probabilities(losses=losses, text=text)
        first = base.first if base.own is None else base.own.first_logprobs
        if first is not None:
            found = divergence(first, self._first(answered))
            return Probabilities(losses=losses, text=text, divergence=found, notes=(ALONG,))
        top = None if self.chat.opening else top_tokens(self._first(answered), self.chat.tokenizer)
        bound, note = bounded_divergence(base, top, OPENED)
        return Probabilities(losses=losses, text=text, divergence=bound, notes=(note, ALONG))

    def nats_after_thoughts(self, answers: Sequence[Answer]) -> Mapping[str, Nats]:
        """By prompt, what its known answer costs after the model's own finished thought; empty if there is none.

        Raises:
            UsageError: vLLM fails.
            VerificationError: a value is not finite.
        """
        kept: tuple[PromptSet, ThoughtFormat] | None = thoughts_kept(answers, self.chat)
        return {} if kept is None else self._nats(*kept)

    def base_logprobs(self, questions: Questions) -> BaseLogprobs:
        """Its log-probabilities of the answered set's first tokens, and its loss on the texts.

        Raises:
            UsageError: vLLM fails.
            VerificationError: a value is not finite.
        """
        text = self._text(questions)
        read = None if text is None else text.read.loss
        if questions.answered is None:
            return BaseLogprobs(text=read)
        first = self._first(questions.answered)
        if self.chat.opening:
            return BaseLogprobs(first=first, missing=OPENED, text=read)
        return BaseLogprobs(first=first, most_probable=partial(top_tokens, first, self.chat.tokenizer), text=read)

    def notes(self, questions: Questions) -> tuple[str, ...]:
        """What generated the answers."""
        version = getattr(self.library, "__version__", "unknown")
        return (
            f"answers of {self.name} come from vLLM {version}, which rounds otherwise than transformers: single "
            "answers may differ from those of `backend=transformers`",
        )

    def _generation(self, output: Any) -> Generation:
        tokens = list(output.token_ids)
        finished = output.finish_reason == "stop"
        if finished and (not tokens or tokens[-1] not in self.ends):
            # Whether the end token is among the answer's has changed between versions.
            last = output.stop_reason if isinstance(output.stop_reason, int) else min(self.ends, default=0)
            tokens.append(last)
        return Generation(text="", tokens=tuple(tokens), finished=finished)

    def _first(self, prompts: PromptSet) -> Tensor:
        """Log-probabilities of an answer's first text token, (n, vocabulary) float32."""
        if prompts.sha256 not in self._known:
            asked = [self.chat.encode_opened(prompt) for prompt in prompts.prompts]
            vocabulary = int(self.engine.model_config.get_vocab_size())
            rows = torch.full((len(asked), vocabulary), -math.inf)
            with bar("next-token probabilities", len(asked)) as shown:
                for start in range(0, len(asked), _ROWS):
                    some = asked[start : start + _ROWS]
                    found = self._ask(some, None, max_tokens=1, logprobs=-1)
                    for row, output in enumerate(found, start=start):
                        values = output.outputs[0].logprobs[0]
                        tokens = torch.tensor(list(values), dtype=torch.long)
                        rows[row, tokens] = torch.tensor([value.logprob for value in values.values()])
                    shown.advance(len(some))
            if rows.isnan().any():
                raise VerificationError(f"{self.name}: the log-probabilities that vLLM gives are not numbers")
            self._known[prompts.sha256] = rows
        found_rows: Tensor = self._known[prompts.sha256]
        return found_rows

    def _nats(self, prompts: PromptSet, chat: ChatFormat) -> Mapping[str, Nats]:
        names, asked, answers = known_tokens(prompts, chat)
        if not names:
            return {}
        return dict(zip(names, nats_of(self._along(asked, answers, "answer probabilities")), strict=True))

    def _text(self, questions: Questions) -> TextLoss | None:
        if questions.text is None:
            return None
        key = questions.text.content_sha256
        if key not in self._known:
            read, cut = text_tokens(self.chat.tokenizer, questions.text, self._longest)
            logprobs = self._along([tokens[:1] for tokens in read], [tokens[1:] for tokens in read], "texts")
            self._known[key] = text_loss_of(questions.text, logprobs, cut)
        found: TextLoss = self._known[key]
        return found

    @property
    def _longest(self) -> int:
        # One token is generated behind what is read.
        return min(TEXT_TOKENS, int(self.engine.model_config.max_model_len) - 1)

    def _along(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], description: str
    ) -> list[Tensor]:
        """The log-probability of each token of each answer, given what stands before it."""
        whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        outputs = self._ask(whole, description, max_tokens=1, prompt_logprobs=1)
        found = []
        for output, tokens, answer in zip(outputs, whole, answers, strict=True):
            places = range(len(tokens) - len(answer), len(tokens))
            found.append(torch.tensor([output.prompt_logprobs[place][tokens[place]].logprob for place in places]))
        return found

    def _ask(self, sequences: Sequence[Sequence[int]], description: str | None, **settings: Any) -> list[Any]:
        """What vLLM gives for prompts as tokens, greedily, in their order."""
        if self.engine is None:
            raise UsageError(f"the vLLM engine of {self.name} is closed; open it again")
        # Texts are decoded here: what vLLM drops from them is told nowhere.
        greedy = self.library.SamplingParams(temperature=0.0, detokenize=False, **settings)
        prompts = [{"prompt_token_ids": list(sequence)} for sequence in sequences]
        with _told(self.name):
            if description is None:
                return list(self.engine.generate(prompts, greedy, use_tqdm=False))
            with bar(description, len(prompts), unit="answers" if description.startswith("answers") else "") as shown:
                return list(self.engine.generate(prompts, greedy, use_tqdm=_moving(shown)))


class _Moved:
    """What vLLM takes for a bar of tqdm: the package's own bar moves with it."""

    def __init__(self, shown: Bar) -> None:
        self._shown = shown
        self._began = monotonic()
        self.n = 0
        self.postfix = ""

    @property
    def format_dict(self) -> dict[str, float]:
        """The seconds since it began, never 0: vLLM divides by them."""
        return {"elapsed": max(1e-9, monotonic() - self._began)}

    def update(self, n: int = 1) -> None:
        """Advance by n prompts."""
        self.n += n
        self._shown.advance(n)

    def refresh(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _moving(shown: Bar) -> Callable[..., Any]:
    def progress(iterable: Any = None, **_: Any) -> Any:
        # vLLM shows the reading of the prompts too, which takes no time.
        return _Moved(shown) if iterable is None else iterable

    return progress


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Within the block, what vLLM says of its failure is one line for the user."""
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise UsageError(f"vLLM fails on {name}: {first_line(error)}") from error


def _named_ends(folder: Path, config: Any) -> Any:
    """`eos_token_id` of generation_config.json, else of the config."""
    from transformers import GenerationConfig

    named = None
    if (folder / "generation_config.json").is_file():
        named = GenerationConfig.from_pretrained(folder).eos_token_id
    return getattr(config, "eos_token_id", None) if named is None else named
