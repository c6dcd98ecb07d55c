"""A GGUF file as a target of `evaluate`, served by llama.cpp."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from weight_edit.checkpoint.gguf.header import GgufHeader, read_gguf_header
from weight_edit.errors import UsageError
from weight_edit.evaluation.endpoint.cache import AnswerCache
from weight_edit.evaluation.endpoint.client import ChatClient, ChatSettings
from weight_edit.evaluation.endpoint.endpoint import Endpoint
from weight_edit.evaluation.gguf.server import START_SECONDS, LlamaServer, ServerSettings
from weight_edit.evaluation.spoken import Spoken
from weight_edit.prompts.templates import Scalar, check_template_args
from weight_edit.utils.names import check_known

PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{{ 'Assistant:' }}"
)
"""The plain format of `ChatFormat` as a chat template."""

_TEMPLATE_TOKENS = 1024
"""Room in the context for what a chat template writes around a prompt."""

_STEP = 512
_MOST_TOKENS = 1 << 16
"""The most tokens of all slots together, so that long prompts get fewer slots instead of more memory."""


class ServedGguf(Endpoint):
    """A GGUF file behind a `llama-server` of its own, which is started by the first question and stopped by `close`.

    It is a context manager. No answer of it is cached: another file may have the same name. The server is started again
    where a later prompt needs more room than it has.

    Args:
        path: the file; of a model in parts the first.
        program: the path of `llama-server`.
        system: a system prompt put before every instruction.
        template: "plain", or the name of one of the file's chat templates; None is its own.
        template_args: variables of the chat template.
        slots: answers at the same time.
        seconds: how long the server may take to load the file.

    Raises:
        UsageError: no such file, one that cannot be read, or without a chat template where none is named; a template
            or a variable of one that is unknown.
    """

    def __init__(
        self,
        path: str | Path,
        program: Path,
        *,
        system: str | None = None,
        template: str | None = None,
        template_args: Mapping[str, Scalar] | None = None,
        slots: int = 8,
        seconds: float = START_SECONDS,
    ) -> None:
        self.path = Path(path).expanduser()
        self.program = program
        header = read_gguf_header(self.path)
        text = template_text(header, template, self.path.name)
        check_template_args(dict(template_args or {}), None if template == "plain" else text, self.path.name)
        # The server's address is known when it runs.
        client = ChatClient("http://127.0.0.1", self.path.name, concurrency=slots, cache=AnswerCache(None))
        super().__init__(
            client.address, client.model, system=system, template_args=template_args, concurrency=slots, client=client
        )
        self.template = template
        self._text = None if template is None else text
        self._most_context = header.context_length
        self._seconds = seconds
        self._server: LlamaServer | None = None

    def __repr__(self) -> str:
        return f"ServedGguf({str(self.path)!r})"

    def __enter__(self) -> "ServedGguf":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server; another question starts it again."""
        if self._server is not None:
            self._server.stop()
        self._server = None

    @property
    def public_name(self) -> str:
        """The file's name."""
        return self.path.name.encode("utf-8", "replace").decode()

    @property
    def note(self) -> str:
        """Where the answers come from, for a reader of the rates."""
        return f"answers of {self.public_name} come from llama.cpp's server: {self.client.usage.line()}"

    def spoken(
        self, prompts: Sequence[str], *, max_new_tokens: int, lengths: Sequence[int], description: str | None
    ) -> list[Spoken]:
        """The greedy answers with their lengths, as `Endpoint.spoken`.

        Raises:
            UsageError, UnsupportedError: the server cannot be started or fails; or as `Endpoint.spoken`.
        """
        found = super().spoken(prompts, max_new_tokens=max_new_tokens, lengths=lengths, description=description)
        # llama.cpp counts the end of the turn, which is no token of the answer.
        return [
            Spoken(reply=each.reply, tokens=max(0, each.tokens - each.reply.finished) if each.tokens else each.tokens)
            for each in found
        ]

    def _ask(self, prompts: Sequence[str], settings: ChatSettings, description: str) -> None:
        if not prompts:
            return
        server = self._serving(self._settings(prompts, settings.max_tokens))
        try:
            super()._ask(prompts, settings, description)
        except UsageError as error:
            if not server.running:
                raise server.failure("ended") from error
            raise

    def _settings(self, prompts: Sequence[str], max_tokens: int) -> ServerSettings:
        """Settings under which any of the prompts fits: a token has a byte at least."""
        longest = max(len(prompt.encode()) for prompt in prompts) + len((self.system or "").encode())
        context = -(-(longest + max_tokens + _TEMPLATE_TOKENS) // _STEP) * _STEP
        if self._most_context is not None:
            context = min(context, self._most_context)
        slots = max(1, min(self.client.concurrency, _MOST_TOKENS // context))
        return ServerSettings(slots=slots, context=context, template=self._text)

    def _serving(self, settings: ServerSettings) -> LlamaServer:
        server = self._server
        if server is None or not server.running or server.settings.context < settings.context:
            self.close()
            server = self._server = LlamaServer(self.program, self.path, settings, seconds=self._seconds)
            self.client.served_by(server.url, server.model, server.key)
        return server


def template_text(header: GgufHeader, template: str | None, name: str) -> str:
    """The chat template by its name, as `ChatFormat` takes names; None is the file's own.

    Args:
        name: the file's, for messages.

    Raises:
        UsageError: there is none of that name, or the file has none and none is named.
    """
    if template == "plain":
        return PLAIN
    if template is not None:
        check_known(f"chat template of {name}", template, ("plain", *header.templates))
        return header.templates[template]
    if "default" not in header.templates:
        others = ", ".join(sorted(header.templates))
        reason = f"has no chat template of its own, only {others}" if others else "has no chat template"
        raise UsageError(
            f"{name} {reason}; pass `template=plain` to use `User: ...` and `Assistant:`", option="template"
        )
    return header.templates["default"]
