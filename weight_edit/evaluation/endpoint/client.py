"""The client of a chat server: many questions at once, each answered once."""

import json
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from weight_edit.errors import UsageError, first_line
from weight_edit.evaluation.endpoint.address import PATH, base_address, is_local, key_advice, key_for
from weight_edit.evaluation.endpoint.answer import ChatAnswer, Unreadable, error_text, read_answer
from weight_edit.evaluation.endpoint.cache import AnswerCache, digest_of
from weight_edit.evaluation.endpoint.retry import RETRY, Retry, is_transient, retry_after
from weight_edit.evaluation.endpoint.usage import Usage
from weight_edit.utils.json import JsonError, parse_json
from weight_edit.utils.progress import bar

if TYPE_CHECKING:
    import httpx2

Messages = Sequence[Mapping[str, str]]
"""A conversation: mappings with `role` and `content`."""

MAX_BYTES = 32_000_000
"""The most bytes of a response that are read."""

_MAX_ERROR_BYTES = 64_000
_CONNECT_SECONDS = 10.0
_REJECTED = frozenset({400, 413, 422})
"""Statuses by which servers decline one request: it is too long, or against their rules."""


class Rejected(UsageError):
    """Raised for a request that the server declines as it is; others may pass."""


class _Again(Exception):
    """Raised for a request that may succeed at another try.

    Args:
        after: seconds that the server asks to wait.
        tries: so many tries it counts for: one that took minutes is not made as often.
    """

    def __init__(self, reason: str, after: float | None = None, *, tries: int = 1) -> None:
        super().__init__(reason)
        self.after = after
        self.tries = tries


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """What is asked for with every conversation; the temperature is 0.

    Attributes:
        max_tokens: the limit on an answer's length.
        top_logprobs: so many of the most probable tokens with their log-probabilities; None asks for none.
        template_args: variables of the chat template, sent as `chat_template_kwargs`, which vLLM, SGLang and the
            server of llama.cpp read.
    """

    max_tokens: int
    top_logprobs: int | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)


class ChatClient:
    """A chat server and one of its models.

    The key is read from the environment for each request (`WEIGHT_EDIT_API_KEY`, else `OPENAI_API_KEY`) and kept
    nowhere; a server of our own has one of its own. No redirect is followed. A proxy of the environment is used for
    other machines alone.

    Args:
        url: the server's address, such as `http://127.0.0.1:8000/v1`.
        model: the model's name there.
        concurrency: requests at the same time.
        timeout: seconds without a byte, and for a whole answer, after which a request is sent again.
        retry: how often and when; `RETRY` when None.
        cache: answers that are kept; those of the tool's cache folder when None.
        fresh: do not look into the cache; what is answered is kept in it all the same.
        max_bytes: the most bytes of a response that are read.

    Raises:
        UsageError: a wrong address or number.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        concurrency: int = 8,
        timeout: float = 600.0,
        retry: Retry | None = None,
        cache: AnswerCache | None = None,
        fresh: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if concurrency < 1:
            raise UsageError(f"`concurrency={concurrency}`: it must be at least 1", option="concurrency")
        if not timeout > 0:
            raise UsageError(f"a timeout of {timeout} s is none; give more than 0")
        if not model.strip():
            raise UsageError("the server's model has no name; give the one that the server knows it by", option="model")
        self.address = base_address(url)
        self.model = model
        self.concurrency = concurrency
        self.timeout = timeout
        self.fresh = fresh
        self.max_bytes = max_bytes
        self.usage = Usage()
        self._key: str | None = None
        self._retry = retry or RETRY
        self._cache = AnswerCache.of_user() if cache is None else cache
        self._reached = False
        """Whether the server has answered anything: one that never did is not waited for."""
        self._limit_name = "max_tokens"
        self._not_before = 0.0
        self._stopped = threading.Event()

    def served_by(self, url: str, model: str, key: str) -> None:
        """Ask a server of our own from now on, of this address, model's name and key."""
        self.address, self.model, self._key = base_address(url), model, key
        self._reached = False

    def __repr__(self) -> str:
        return f"ChatClient({self.address!r}, {self.model!r})"

    def ask(
        self,
        conversations: Sequence[Messages],
        settings: ChatSettings,
        *,
        description: str,
        keep_rejected: bool = False,
    ) -> list[ChatAnswer | Rejected]:
        """The answers to conversations, in their order; equal ones are asked once.

        Each answer is kept as it comes, so that an interrupted run goes on where it was.

        Args:
            description: names the progress bar.
            keep_rejected: put the error in an answer's place where the server declines one request.

        Raises:
            Rejected: the server declines a request.
            UsageError: it cannot be reached, keeps failing, wants a key, or sends what is no chat answer.
        """
        bodies = [self._body(messages, settings) for messages in conversations]
        digests = [digest_of(self.address, body) for body in bodies]
        found: dict[str, ChatAnswer | Rejected] = {}
        if not self.fresh:
            found = {digest: kept for digest in dict.fromkeys(digests) if (kept := self._cache.find(digest))}
        open_ones = {digest: body for digest, body in zip(digests, bodies, strict=True) if digest not in found}
        if open_ones:
            found |= self._ask_all(open_ones, description, keep_rejected)
        answers = [found[digest] for digest in digests]
        for digest in dict.fromkeys(digests):
            answer = found[digest]
            if isinstance(answer, ChatAnswer):
                self.usage.add(answer)
        return answers

    def _body(self, messages: Messages, settings: ChatSettings) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "max_tokens": settings.max_tokens,
            "temperature": 0,
        }
        if settings.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
        if settings.template_args:
            body["chat_template_kwargs"] = dict(settings.template_args)
        return body

    def _ask_all(
        self, bodies: Mapping[str, Mapping[str, Any]], description: str, keep_rejected: bool
    ) -> dict[str, ChatAnswer | Rejected]:
        waiting: queue.SimpleQueue[tuple[str, Mapping[str, Any]]] = queue.SimpleQueue()
        for item in bodies.items():
            waiting.put(item)
        done: queue.SimpleQueue[tuple[str, ChatAnswer | BaseException]] = queue.SimpleQueue()
        self._stopped = stopped = threading.Event()

        def work(http: "httpx2.Client") -> None:
            while not stopped.is_set():
                try:
                    digest, body = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    answer: ChatAnswer | BaseException = self._answer(http, body)
                    if isinstance(answer, ChatAnswer):
                        self._cache.keep(digest, answer)
                except Exception as error:  # noqa: BLE001 - raised again in the thread that asks
                    answer = error
                done.put((digest, answer))

        found: dict[str, ChatAnswer | Rejected] = {}
        with self._http() as http, bar(description, len(bodies), unit="answers") as shown:
            try:
                for _ in range(min(self.concurrency, len(bodies))):
                    # Daemons: after Ctrl-C nobody waits for a slow server's answer.
                    threading.Thread(target=copy_context().run, args=(work, http), name="endpoint", daemon=True).start()
                for _ in range(len(bodies)):
                    digest, answer = done.get()
                    if isinstance(answer, BaseException) and not (keep_rejected and isinstance(answer, Rejected)):
                        raise answer
                    found[digest] = answer
                    shown.advance()
            finally:
                stopped.set()
        return found

    def _http(self) -> "httpx2.Client":
        import httpx2

        return httpx2.Client(
            timeout=httpx2.Timeout(self.timeout, connect=min(_CONNECT_SECONDS, self.timeout)),
            limits=httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency),
            follow_redirects=False,
            # A proxy can reach neither this machine's server nor be trusted with what is said to it.
            trust_env=not is_local(self.address),
        )

    def _answer(self, http: "httpx2.Client", body: Mapping[str, Any]) -> ChatAnswer:
        """The answer to one request, which is sent again as long as that may help."""
        failed = 0
        while True:
            self._pause(self._not_before - time.monotonic())
            if self._stopped.is_set():
                raise UsageError("interrupted")
            try:
                return self._attempt(http, body)
            except _Again as again:
                failed += again.tries
                if failed >= self._retry.tries:
                    asks = "" if again.after is None else f", and asks to wait {again.after:.0f} s"
                    raise UsageError(
                        f"{self.address} did not answer, however often it was asked: {again}{asks}; try again later "
                        "(what was answered is kept)"
                    ) from None
                wait = self._retry.wait(failed, again.after)
                if again.after is not None:
                    # It is asked of the client, not of the one request.
                    self._not_before = max(self._not_before, time.monotonic() + min(again.after, self._retry.most))
                self._pause(wait)

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            self._stopped.wait(seconds)

    def _attempt(self, http: "httpx2.Client", body: Mapping[str, Any]) -> ChatAnswer:
        import httpx2

        sent = {self._limit_name if key == "max_tokens" else key: value for key, value in body.items()}
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        key = self._key or key_for(self.address)
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        content = json.dumps(sent).encode()
        try:
            with http.stream("POST", self.address + PATH, content=content, headers=headers) as response:
                status = response.status_code
                text = self._text(response, self.max_bytes if status < 300 else _MAX_ERROR_BYTES)
                self._reached = True
                if status >= 300:
                    self._fail(response, text, sent)
        except httpx2.TimeoutException as error:
            if isinstance(error, httpx2.ConnectTimeout) and not self._reached:
                raise self._unreachable(error) from None
            raise _Again(f"no answer within {self.timeout:g} s", tries=2) from None
        except httpx2.TransportError as error:
            # A wrong port or a server that is off shows at once, and is said at once.
            if isinstance(error, httpx2.ConnectError | httpx2.ProxyError) and not self._reached:
                raise self._unreachable(error) from None
            raise _Again(f"the connection broke ({_said(error)})") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            raise UsageError(f"{self.address} cannot be asked: {_said(error)}") from None
        return self._read(text)

    def _unreachable(self, error: Exception) -> UsageError:
        return UsageError(
            f"the server at {self.address} cannot be reached ({_said(error)}); start it, or see whether the address "
            "is right",
            option="endpoint",
        )

    def _text(self, response: "httpx2.Response", most: int) -> str:
        """The body, of at most so many bytes; of an error the first of them."""
        began = time.monotonic()
        parts: list[bytes] = []
        size = 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > most:
                if response.status_code >= 300:
                    break
                raise UsageError(
                    f"the answer of {self.address} is longer than {most:,} bytes, which no chat answer is; is it "
                    "the address of a chat server?",
                    option="endpoint",
                )
            if time.monotonic() - began > self.timeout:
                # A byte now and then keeps the other timeouts away.
                raise _Again(f"no whole answer within {self.timeout:g} s", tries=2)
        return b"".join(parts).decode("utf-8", "replace")

    def _fail(self, response: "httpx2.Response", text: str, sent: Mapping[str, Any]) -> None:
        """Raise what a status of failure means."""
        status = response.status_code
        said = _message(text)
        told = f"HTTP {status}{f' ({said})' if said else ''}"
        if is_transient(status):
            raise _Again(told, retry_after(response.headers.get("Retry-After")))
        if status < 400:
            where = _place(response.headers.get("Location"))
            raise UsageError(
                f"{self.address} sends on to {where}, which is not followed with a key; give that address",
                option="endpoint",
            )
        if status in (401, 403):
            raise UsageError(f"{self.address} refuses access, {told}: {key_advice(self.address)}")
        if status == 404:
            raise UsageError(
                f"{self.address}{PATH} is not found or has no model {self.model!r}: {told}; most addresses end in /v1, "
                f"and {self.address}/models lists the models",
                option=("endpoint", "model"),
            )
        if status in _REJECTED:
            if "max_tokens" in sent and "max_completion_tokens" in (said or ""):
                # Some hosted models know the limit by this name alone.
                self._limit_name = "max_completion_tokens"
                raise _Again(told, 0.0)
            raise Rejected(f"{self.address} declines a request: {told}")
        raise UsageError(f"{self.address} fails: {told}")

    def _read(self, text: str) -> ChatAnswer:
        try:
            return read_answer(parse_json(text, unique_keys=False, constants=True))
        except Unreadable as error:
            reason = str(error)
        except (JsonError, ValueError):
            reason = "an HTML page" if text.lstrip()[:1] == "<" else "no JSON"
            reason = f"it is {reason if text.strip() else 'empty'}"
        raise UsageError(
            f"the answer of {self.address} is no chat answer: {reason}; is it the address of a chat server?",
            option="endpoint",
        )


def _message(text: str) -> str | None:
    """The message of an error's body."""
    try:
        return error_text(parse_json(text, unique_keys=False))
    except (JsonError, ValueError):
        stripped = text.strip()
        return "an HTML page" if stripped[:1] == "<" else error_text(stripped[:1000])


def _place(location: str | None) -> str:
    """Where a redirect leads, without its settings, which may be a signature."""
    return repr((location or "nowhere").partition("?")[0].rpartition("@")[2][:200])


def _said(error: Exception) -> str:
    return first_line(error)
