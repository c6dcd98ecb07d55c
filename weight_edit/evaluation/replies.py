"""Replies read off generated tokens, whatever generated them."""

from collections.abc import Sequence

from weight_edit.evaluation.registry import Reply
from weight_edit.evaluation.spoken import Spoken
from weight_edit.prompts.answers import answer_text
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.generation import Generation


def spoken_of(chat: ChatFormat, prompt: str, generation: Generation, lengths: Sequence[int] = ()) -> Spoken:
    """The reply that tokens spell out, with their number, and what it would have been at shorter limits.

    Args:
        chat: the format of the prompt that they follow.
        lengths: the limits, in tokens.
    """
    reply = _reply(chat, prompt, generation.tokens, generation.finished)
    cut = {
        length: _reply(chat, prompt, generation.tokens[:length], False) if length < len(generation.tokens) else reply
        for length in lengths
    }
    return Spoken(reply=reply, tokens=_count(chat, generation), cut=cut)


def _reply(chat: ChatFormat, prompt: str, tokens: Sequence[int], ended: bool) -> Reply:
    text, finished = answer_text(chat, tokens, ended)
    control = tuple(map(str, chat.tokenizer.all_special_tokens))
    return Reply(prompt=prompt, text=text, finished=finished, opened=chat.opens_thought, control=control)


def _count(chat: ChatFormat, generation: Generation) -> int:
    # A checkpoint's generation config may not know the template's end of turn, but the answer ends there; where the
    # template opens answers, thoughts end so, too.
    if not chat.opening and chat.end_of_turn in generation.tokens:
        return generation.tokens.index(chat.end_of_turn)
    return len(generation.tokens) - generation.finished
