"""A model on a chat server as a target of `evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from weight_edit.errors import UsageError
from weight_edit.evaluation.endpoint.answer import TOP, ChatAnswer
from weight_edit.evaluation.endpoint.client import ChatClient, ChatSettings, Messages, Rejected
from weight_edit.evaluation.lengths import SERVED
from weight_edit.evaluation.registry import Reply
from weight_edit.evaluation.spoken import Spoken
from weight_edit.prompts.templates import Scalar
from weight_edit.prompts.thoughts import CLOSE, OPEN

if TYPE_CHECKING:
    from weight_edit.evaluation.answers import Answer
    from weight_edit.evaluation.loss import Nats
    from weight_edit.evaluation.probabilities import BaseLogprobs, Probabilities
    from weight_edit.evaluation.questions import Questions


class Endpoint:
    """A model on a server that speaks the chat protocol of OpenAI: vLLM, llama.cpp, Ollama, SGLang, hosted ones.

    What needs answers alone is measured as of a loaded model. Answers are cached by what was asked and where, so that
    another model under the same name is not noticed: then ask afresh. The key is read from the environment
    (`WEIGHT_EDIT_API_KEY`, else `OPENAI_API_KEY`).

    Args:
        url: the server's address, such as `http://127.0.0.1:8000/v1`.
        model: the model's name there.
        system: a system prompt put before every instruction.
        template_args: variables of the server's chat template, sent as `chat_template_kwargs`.
        concurrency: requests at the same time.
        fresh: ask again what is in the cache.
        client: the client; one with these settings when None.

    Raises:
        UsageError: a wrong address or number.
    """

    template: str | None = None
    """The name of a chat template: the server uses its own."""

    thinking: str | None = None
    """What was asked of it: its own variable says that."""

    can_stop_thinking = False
    """Nobody knows the server's template."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        system: str | None = None,
        template_args: Mapping[str, Scalar] | None = None,
        concurrency: int = 8,
        fresh: bool = False,
        client: ChatClient | None = None,
    ) -> None:
        self.client = client or ChatClient(url, model, concurrency=concurrency, fresh=fresh)
        self.system = system
        self.template_args: dict[str, Any] = dict(template_args or {})
        self._known: dict[tuple[str, int], ChatAnswer] = {}
        self._top: dict[tuple[tuple[str, ...], int], list[Mapping[str, float]] | None] = {}
        self._sends_logprobs = True

    def __repr__(self) -> str:
        return f"Endpoint({self.client.address!r}, {self.client.model!r})"

    def close(self) -> None:
        """Nothing: the server is another's."""

    @property
    def public_name(self) -> str:
        """The model's name fit for publication: of a path only the last part."""
        name = self.client.model
        return PurePath(name).name if name.startswith(("/", "~", ".")) else name

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int, description: str | None) -> list[Reply]:
        """The greedy answers to prompts; what a server sends apart as reasoning stands before them as a thought.

        Raises:
            UsageError: as `ChatClient.ask`.
        """
        settings = ChatSettings(max_tokens=max_new_tokens, template_args=self.template_args)
        unknown = [prompt for prompt in dict.fromkeys(prompts) if (prompt, max_new_tokens) not in self._known]
        self._ask(unknown, settings, description or "answers")
        return [_reply(prompt, self._known[prompt, max_new_tokens]) for prompt in prompts]

    def spoken(
        self, prompts: Sequence[str], *, max_new_tokens: int, lengths: Sequence[int], description: str | None
    ) -> list[Spoken]:
        """The same with their lengths where the server counts; none is cut, for a server gives no tokens to cut by.

        Raises:
            UsageError: as `ChatClient.ask`.
        """
        replies = self.replies(prompts, max_new_tokens=max_new_tokens, description=description)
        counts = [self._known[prompt, max_new_tokens].answer_tokens for prompt in prompts]
        return [Spoken(reply=reply, tokens=count) for reply, count in zip(replies, counts, strict=True)]

    def top_tokens(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[Mapping[str, float]] | None:
        """The most probable first tokens of the answers with their log-probabilities; None if the server sends none.

        The answers come with them, so that `replies` asks for them no more.

        Raises:
            UsageError: as `ChatClient.ask`.
        """
        key = tuple(prompts), max_new_tokens
        if key not in self._top:
            self._top[key] = self._ask_top(prompts, max_new_tokens)
        return self._top[key]

    def _ask_top(self, prompts: Sequence[str], max_new_tokens: int) -> list[Mapping[str, float]] | None:
        if not self._sends_logprobs:
            return None
        settings = ChatSettings(max_tokens=max_new_tokens, top_logprobs=TOP, template_args=self.template_args)
        try:
            self._ask(prompts, settings, "answers (answered)")
        except Rejected as error:
            if "logprob" not in str(error):
                raise
            self._sends_logprobs = False
            return None
        found = [self._known[prompt, max_new_tokens].first_tokens for prompt in prompts]
        self._sends_logprobs = all(tokens is not None for tokens in found)
        return [tokens for tokens in found if tokens is not None] if self._sends_logprobs else None

    def probabilities(self, questions: "Questions", base: "BaseLogprobs | None") -> "Probabilities":
        """A lower bound of the first token's divergence; a chat server gives no probabilities of given texts.

        Raises:
            UsageError: the base has the first token's log-probabilities alone; or as `ChatClient.ask`.
        """
        # torch is loaded by what is compared with.
        from weight_edit.evaluation.first_token import bounded_divergence
        from weight_edit.evaluation.probabilities import ALONG, UNREAD, Probabilities

        if base is not None and base.first is not None:
            raise UsageError("`base_logprobs` are compared with a loaded model's; give `against`", option="against")
        notes: list[str] = []
        bound = None
        answered = questions.answered
        if answered is not None and questions.compared:
            # The first tokens come with the answers, so that these are asked for no more.
            own = self.top_tokens(answered.prompts, max_new_tokens=questions.max_new_tokens)
            if base is not None:
                bound, note = bounded_divergence(base, own, self._sends_none)
                notes += [note, UNREAD.format(what=ALONG)]
        if any(any(prompts.answers) for prompts in questions.sets.values()):
            notes.append(UNREAD.format(what="the cross-entropy of known answers"))
        if questions.text is not None:
            notes.append(UNREAD.format(what="the cross-entropy of texts"))
        return Probabilities(divergence=bound, notes=tuple(notes))

    def nats_after_thoughts(self, answers: "Sequence[Answer]") -> "Mapping[str, Nats]":
        """Nothing: a chat server gives no probabilities of given texts."""
        return {}

    def base_logprobs(self, questions: "Questions") -> "BaseLogprobs":
        """The most probable first tokens on the answered set, where the server sends them.

        Raises:
            UsageError: as `ChatClient.ask`.
        """
        from weight_edit.evaluation.probabilities import BaseLogprobs

        answered = questions.answered
        top = None
        if answered is not None:
            top = self.top_tokens(answered.prompts, max_new_tokens=questions.max_new_tokens)
        return BaseLogprobs(
            most_probable=None if top is None else lambda: top, missing=self._sends_none, notes=(self.note,)
        )

    def notes(self, questions: "Questions") -> tuple[str, ...]:
        """What the answers lack, and where they come from."""
        uncut = (SERVED.format(name=self.public_name),) if questions.lengths else ()
        return (*uncut, self.note)

    @property
    def _sends_none(self) -> str:
        return f"the server of {self.public_name} sends no log-probabilities (`top_logprobs`)"

    @property
    def note(self) -> str:
        """Where the answers come from, for a reader of the rates."""
        usage = self.client.usage
        said = f"answers of {self.public_name} come from a chat server: {usage.line()}"
        if usage.cached:
            said += "; if another model has that name there now, ask again (`fresh=True`)"
        return said

    def _ask(self, prompts: Sequence[str], settings: ChatSettings, description: str) -> None:
        if not prompts:
            return
        answers = self.client.ask([self._messages(prompt) for prompt in prompts], settings, description=description)
        for prompt, answer in zip(prompts, answers, strict=True):
            assert isinstance(answer, ChatAnswer)
            self._known[prompt, settings.max_tokens] = answer

    def _messages(self, prompt: str) -> Messages:
        before = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*before, {"role": "user", "content": prompt}]


def _reply(prompt: str, answer: ChatAnswer) -> Reply:
    text = answer.text
    if answer.thought is not None and answer.thought.strip():
        # A thought that was cut is not closed: then there is no answer yet.
        ended = bool(text) or answer.finished
        text = f"{OPEN}{answer.thought}{CLOSE if ended else ''}{text}"
    return Reply(prompt=prompt, text=text, finished=answer.finished)
