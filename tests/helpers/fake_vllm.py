"""A module with the part of vLLM's interface that is used here, over a model that transformers runs.

Names, defaults and results are those of the sources of vLLM 0.33; the real one needs a GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from weight_edit.runtime.forward import answer_logprobs, next_token_logprobs
from weight_edit.runtime.generation import generate
from weight_edit.runtime.loading import load

__version__ = "0.33.0"

LLM_PARAMETERS = frozenset({"dtype", "trust_remote_code", "seed", "gpu_memory_utilization", "tensor_parallel_size"})
ENGINE_PARAMETERS = frozenset({"max_logprobs", "generation_config", "max_model_len"})
"""Keywords of `LLM`: its own, and those that go on to `EngineArgs`."""

opened: list["LLM"] = []
"""Every engine that was made."""

drops_end = False
"""Whether answers come without their end token."""


@dataclass(kw_only=True)
class SamplingParams:
    """The settings of a request."""

    temperature: float = 1.0
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True


@dataclass
class Logprob:
    """One token's."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass(kw_only=True)
class CompletionOutput:
    """One answer."""

    token_ids: Sequence[int]
    finish_reason: str | None
    stop_reason: int | str | None = None
    logprobs: Sequence[Mapping[int, Logprob]] | None = None
    text: str = ""


@dataclass(kw_only=True)
class RequestOutput:
    """A request's answers."""

    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: Sequence[Mapping[int, Logprob] | None] | None = None
    finished: bool = True


class LLM:
    """An engine."""

    def __init__(self, model: str, **settings: Any) -> None:
        assert settings.keys() <= LLM_PARAMETERS | ENGINE_PARAMETERS, settings.keys()
        self.settings = settings
        self.held = load(model, dtype=settings["dtype"])
        self.model_config = SimpleNamespace(get_vocab_size=lambda: self.held.vocabulary, max_model_len=256)
        self.shut = False
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._shutdown))
        self.asked: list[SamplingParams] = []
        # Two engines do not fit into one GPU.
        assert all(other.shut for other in opened)
        opened.append(self)

    def _shutdown(self) -> None:
        self.shut = True

    def generate(
        self, prompts: Sequence[Mapping[str, Any]], sampling_params: SamplingParams, *, use_tqdm: Any = True
    ) -> list[RequestOutput]:
        """The answers, in the order of the prompts."""
        assert not self.shut
        assert sampling_params.temperature == 0
        self.asked.append(sampling_params)
        sequences = [list(prompt["prompt_token_ids"]) for prompt in prompts]
        longest = max(map(len, sequences)) + (sampling_params.max_tokens or 0)
        if longest > self.model_config.max_model_len:
            raise ValueError(f"The decoder prompt is longer than {self.model_config.max_model_len}.\nShorten it.")
        rendered = use_tqdm(sequences, desc="Rendering prompts") if callable(use_tqdm) else sequences
        moved = use_tqdm(total=len(sequences), desc="Processed prompts") if callable(use_tqdm) else None
        said = generate(self.held, list(rendered), max_new_tokens=sampling_params.max_tokens, description=None)
        first = next_token_logprobs(self.held, sequences, description=None) if sampling_params.logprobs else None
        outputs = []
        for row, (sequence, each) in enumerate(zip(sequences, said, strict=True)):
            tokens = each.tokens[:-1] if drops_end and each.finished else each.tokens
            output = CompletionOutput(
                token_ids=tokens,
                finish_reason="stop" if each.finished else "length",
                stop_reason=each.tokens[-1] if each.finished else None,
            )
            if first is not None:
                output.logprobs = [{token: Logprob(float(value)) for token, value in enumerate(first[row])}]
            request = RequestOutput(request_id=str(row), prompt_token_ids=sequence, outputs=[output])
            if sampling_params.prompt_logprobs is not None:
                values = answer_logprobs(self.held, [sequence[:1]], [sequence[1:]], description=None)[0]
                pairs = zip(sequence[1:], values.tolist(), strict=True)
                request.prompt_logprobs = [None, *({token: Logprob(value)} for token, value in pairs)]
            outputs.append(request)
            if moved is not None:
                assert moved.format_dict["elapsed"] > 0
                moved.postfix = "est. speed"
                moved.update(1)
                if moved.n == len(sequences):
                    moved.refresh()
        if moved is not None:
            moved.close()
        return outputs
