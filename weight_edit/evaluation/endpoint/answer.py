"""A server's answer, read from the JSON that it sends."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from weight_edit.redaction import redacted

TOP = 20
"""The most probable first tokens that servers are asked for; many give no more."""


class Unreadable(ValueError):
    """Raised for JSON that is no chat answer; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class ChatAnswer:
    """An answer of a chat server.

    Attributes:
        text: the answer, without a thought that the server sends apart.
        thought: what the server sends apart as reasoning; None where there is none.
        finished: whether the model ended it; False where it was cut at the limit of tokens.
        first_tokens: the most probable first tokens with their log-probabilities in nats; None where the server sent
            none.
        prompt_tokens, answer_tokens: as the server counts them; None where it does not say.
        cached: when it was asked, as ISO 8601 in UTC, where it comes from the cache; else None.
    """

    text: str
    thought: str | None = None
    finished: bool = True
    first_tokens: Mapping[str, float] | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    cached: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without where it comes from."""
        entry = asdict(self)
        del entry["cached"]
        return entry

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any], *, cached: str) -> "ChatAnswer":
        """The answer of `to_dict`.

        Raises:
            TypeError, ValueError: it is damaged.
        """
        answer = cls(**entry, cached=cached)
        texts = (answer.text, *filter(None, (answer.thought,)))
        if not all(isinstance(text, str) for text in texts) or not isinstance(answer.finished, bool):
            raise ValueError("no answer")
        return answer


def read_answer(content: Any) -> ChatAnswer:
    """The answer in the parsed JSON of a response; keys that a server sends back are hidden in it.

    Raises:
        Unreadable: it is none.
    """
    if not isinstance(content, dict):
        raise Unreadable("the JSON is no object")
    choices = content.get("choices")
    if not choices and (said := error_text(content)):
        # Some servers send errors with the status of success.
        raise Unreadable(f"it is an error ({said})")
    if not isinstance(choices, list) or not choices:
        raise Unreadable(f"'choices' is {'empty' if choices == [] else 'missing'}")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Unreadable("the first choice has no 'message'")
    # Servers name the thought in either way.
    thought = next((message[key] for key in ("reasoning_content", "reasoning") if message.get(key)), None)
    if "content" not in message and thought is None and not message.get("refusal"):
        raise Unreadable("the message has no 'content'")
    text = _text(message.get("content"))
    usage = content.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return ChatAnswer(
        # A hosted model's refusal may come in a field of its own, with no content.
        text=redacted(text or _text(message.get("refusal"))),
        thought=None if thought is None else redacted(_text(thought)),
        finished=choice.get("finish_reason") != "length",
        first_tokens=_first_tokens(choice.get("logprobs")),
        prompt_tokens=_count(counts.get("prompt_tokens")),
        answer_tokens=_count(counts.get("completion_tokens")),
    )


def error_text(content: Any) -> str | None:
    """The message of an error that a server sent, on one line of at most 200 characters; None if there is none."""
    found = content
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return _line(found) if isinstance(found, str) else None


def _line(text: str) -> str | None:
    return redacted(" ".join(text.split()))[:200] or None


def _text(content: Any) -> str:
    """The text of a message, which may come in parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    raise Unreadable("the message's 'content' is no text")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _sum(one: float, other: float) -> float:
    """The logarithm of the sum of two probabilities, from their logarithms."""
    low, high = sorted((one, other))
    return high if low == high == -math.inf else high + math.log1p(math.exp(low - high))


def _first_tokens(logprobs: Any) -> dict[str, float] | None:
    """The alternatives at the first token, by their texts; log-probabilities of one text are added up."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = tokens[0] if isinstance(tokens, list) and tokens else None
    if not isinstance(first, dict):
        return None
    listed = first.get("top_logprobs")
    entries = listed if isinstance(listed, list) and listed else [first]
    found: dict[str, float] = {}
    for entry in entries:
        token, value = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if not isinstance(token, str) or not isinstance(value, int | float) or not value <= 1e-3:
            return None
        token = redacted(token)
        found[token] = _sum(found[token], float(value)) if token in found else float(value)
    return found
