"""A model of ours as lm-eval calls one; importing this file imports lm-eval, which is an extra."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.models.huggingface import HFLM

from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.loading import Model
from weight_edit.utils.progress import Bar, bar


class HarnessModel(HFLM):
    """A loaded model with its tokenizer, in the chat format that the rest of the package gives it.

    Args:
        model: from `load`.
        chat: the chat format, where documents go into one.
        batch_size: sequences at a time.
        description: of the progress bar.
    """

    def __init__(self, model: Model, chat: ChatFormat | None, *, batch_size: int, description: str) -> None:
        # lm-eval gives a tokenizer without a padding token one, which is ours not to have.
        super().__init__(
            pretrained=model.model, tokenizer=copy.deepcopy(model.tokenizer), backend="causal", batch_size=batch_size
        )
        self._ours, self._chat, self._description = model, chat, description
        self._bar: Bar | None = None

    @property
    def device(self) -> Any:
        """Where token ids go: the model may be spread over several devices."""
        return self._ours.device

    @property
    def tokenizer_name(self) -> str:
        """The name under which lm-eval would cache requests."""
        return str(self._ours.source.public_name)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation, up to the start of the assistant's turn or of what it goes on with."""
        if self._chat is None:
            raise ValueError("no chat format was given")
        return self._chat.conversation(chat_history, answering=add_generation_prompt)

    def chat_template(self, chat_template: Any = False) -> str | None:
        """The template that lm-eval notes in its results."""
        return None

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """As lm-eval's, with a progress bar of ours."""
        return self._shown(super().loglikelihood, requests)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """As lm-eval's, with a progress bar of ours."""
        return self._shown(super().loglikelihood_rolling, requests, counted=False)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """As lm-eval's, with a progress bar of ours."""
        return self._shown(super().generate_until, requests)

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval notes of the model, without asking the Hub."""
        source = self._ours.source
        return {
            "model": source.public_name,
            "model_num_parameters": self._ours.model.num_parameters(),
            "model_dtype": str(self._ours.dtype),
            "model_revision": source.revision or "",
            "model_sha": "",
        }

    def _shown(self, work: Any, requests: Sequence[Any], *, counted: bool = True) -> Any:
        # Long texts are run in windows, whose number is not known here.
        with bar(self._description, len(requests) if counted else None, "requests") as shown:
            self._bar = shown
            try:
                return work(requests, disable_tqdm=True)
            finally:
                self._bar = None

    def _model_call(self, inps: Any, *arguments: Any, **options: Any) -> Any:
        found = super()._model_call(inps, *arguments, **options)
        self._advance(len(inps))
        return found

    def _model_generate(self, context: Any, *arguments: Any, **options: Any) -> Any:
        own = self._ours.model.generation_config
        with _without_length(own):
            found = super()._model_generate(context, *arguments, **options)
        self._advance(len(context))
        return found

    def _advance(self, count: int) -> None:
        if self._bar is not None:
            self._bar.advance(count)


@contextmanager
def _without_length(own: Any) -> Iterator[None]:
    """Within the context a model's generation config has no limit, which would go before that of the task."""
    limit = getattr(own, "max_new_tokens", None)
    if limit is not None:
        own.max_new_tokens = None
    try:
        yield
    finally:
        if limit is not None:
            own.max_new_tokens = limit
