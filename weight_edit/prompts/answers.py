"""A model's answer as text, without the end of the turn, its thought in tags."""

from collections.abc import Sequence

from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.thoughts import CLOSE, OPEN


def answer_text(chat: ChatFormat, tokens: Sequence[int], finished: bool) -> tuple[str, bool]:
    """The text of an answer, special tokens spelled out, and whether it is finished.

    Where the template opens answers with special tokens (`ChatFormat.opening`), the answer is what follows them, and
    what a model wrote before them is a thought, which is put between `<think>` and `</think>`.

    Args:
        tokens: what was generated, the end token included.
        finished: whether it ends in an end token.
    """
    spoken = list(tokens)
    opened = _opened(chat, spoken)
    if opened is None:
        body = spoken[:-1] if finished else spoken
        if chat.opening and _has_words(chat) and body[:1] == [chat.opening[-1]]:
            # A message without a channel's name: not a thought, so it is for the user.
            return _before_end(chat, spoken[1:], finished)
        if chat.opening and body and body[0] in chat.markers and body[0] != chat.end_of_turn:
            # Another channel than the answer's: a thought that came to no answer.
            return f"{OPEN}{_thought(chat, body)}{CLOSE if finished else ''}", finished
        return _before_end(chat, spoken, finished)
    answer, finished = _before_end(chat, spoken[opened[1] :], finished)
    thought = _thought(chat, spoken[: opened[0]])
    return (f"{OPEN}{thought}{CLOSE}{answer}" if thought.strip() else answer), finished


def _before_end(chat: ChatFormat, tokens: list[int], finished: bool) -> tuple[str, bool]:
    # A checkpoint's generation config may not know the template's end of turn, but the answer ends there.
    if chat.end_of_turn in tokens:
        tokens, finished = tokens[: tokens.index(chat.end_of_turn)], True
    elif finished:
        tokens = tokens[:-1]
    return str(chat.tokenizer.decode(tokens, skip_special_tokens=False)), finished


def _opened(chat: ChatFormat, tokens: list[int]) -> tuple[int, int] | None:
    """The begin and end of the answer's opening within tokens; None if there is none."""
    opening = chat.opening
    if not opening:
        return None
    starts = range(len(tokens) - len(opening) + 1)
    exact = next((start for start in starts if tuple(tokens[start : start + len(opening)]) == opening), None)
    if exact is not None:
        return exact, exact + len(opening)
    # An opening without words is an empty thought: the model writes it with the thought in it.
    if not _has_words(chat) and opening[-1] in tokens:
        end = tokens.index(opening[-1])
        return end, end + 1
    return None


def _has_words(chat: ChatFormat) -> bool:
    return any(token not in chat.markers for token in chat.opening)


def _thought(chat: ChatFormat, tokens: list[int]) -> str:
    """The words before an answer: of messages with headers, the parts after the headers."""
    has_headers = _has_words(chat) and chat.opening[-1] in chat.markers
    words: list[int] = []
    inside = not has_headers
    for token in tokens:
        if token in chat.tags:
            continue
        if token in chat.markers:
            inside = not has_headers or token == chat.opening[-1]
        elif inside:
            words.append(token)
    return str(chat.tokenizer.decode(words))
