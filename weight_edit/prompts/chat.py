"""How a prompt becomes the tokens a chat model is given, and which of them come after the instruction."""

import inspect
import string
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError

from weight_edit.errors import FOREIGN_ERRORS, UsageError
from weight_edit.prompts.rendering import limited_template
from weight_edit.prompts.thoughts import CLOSE, OPEN

# Instructions that end in as many ways as instructions end. A tokenizer may merge an instruction's last
# characters with the first of what follows ("." and "\n" are one token in some vocabularies); what is common
# to all of them after encoding is free of such merges.
SENTINELS = (
    *(f"Tell me about it{end}" for end in string.punctuation + string.digits + string.ascii_letters),
    *(
        "alpha",
        "Ω",
        "Name the zebra",
        "LOUD",
        "a\n",
        "b\n\n",
        "Why?!",
        "wait...",
        "wait…",
        'he said "no."',
        "f(x);",
    ),
    *("你好。", "¿qué?", "«voilà»", "naïve café", "🙂", "100%", "3.14", "a b c", "end "),
)
_PLAIN = "plain"


class ChatFormat:
    """A tokenizer's chat template, or a named plain format, as a function from prompts to tokens.

    Args:
        tokenizer: a transformers tokenizer.
        system: a system prompt put before every instruction.
        template: None uses the tokenizer's own chat template. "plain", for models without one, is
            `User: {prompt}\\nAssistant:`, preceded by `{system}\\n\\n` where there is a system prompt.

    Raises:
        UsageError: the tokenizer has no template and none is named, the name is unknown, or the template
            fails, leaves out the instruction, or rejects or ignores the system prompt.
    """

    def __init__(self, tokenizer: Any, *, system: str | None = None, template: str | None = None) -> None:
        if template not in (None, _PLAIN):
            raise UsageError(f"unknown chat template {template!r}; use {_PLAIN!r} or the tokenizer's own")
        if template is None and not tokenizer.chat_template:
            raise UsageError(
                f"the tokenizer of {_name(tokenizer)} has no chat template; "
                f"pass `--template {_PLAIN}` to use `User: ...` and `Assistant:`"
            )
        self.tokenizer = tokenizer
        # A template is a program of the model's author, and may never end.
        self._apply_template = limited_template(tokenizer)
        self.system = system
        self.template = template
        first, second = self._prompt(SENTINELS[0]), self._prompt("alpha")
        if first == second:
            raise UsageError(f"the chat template of {_name(tokenizer)} leaves out the instruction")
        if system is not None and second == ChatFormat(tokenizer, template=template)._prompt("alpha"):
            raise UsageError(f"the chat template of {_name(tokenizer)} ignores a system prompt; leave it out")

    def encode(self, prompt: str) -> list[int]:
        """Token ids of the conversation up to and including the start of the assistant's turn.

        The template writes the special tokens, each once; a prompt's text that looks like one stays text.

        Raises:
            UsageError: the template fails on this prompt.
        """
        return self._prompt(prompt)

    @cached_property
    def suffix(self) -> tuple[int, ...]:
        """The template's own tokens after the instruction, the same for every prompt.

        Raises:
            UsageError: there are none, so no position comes after the instruction.
        """
        common = common_suffix([self.encode(sentinel) for sentinel in SENTINELS])
        if not common:
            raise UsageError(
                f"the chat template of {_name(self.tokenizer)} puts no token after the instruction; "
                f"pass `--template {_PLAIN}`"
            )
        return tuple(common)

    @cached_property
    def suffix_labels(self) -> tuple[str, ...]:
        """The text of each token in `suffix`, for tables and plots."""
        return tuple(str(self.tokenizer.decode([token])) for token in self.suffix)

    @property
    def opens_thought(self) -> bool:
        """Whether the template ends prompts within a thought, so that an answer begins in one, without `<think>`."""
        return self._ending.rfind(OPEN) > self._ending.rfind(CLOSE)

    @cached_property
    def end_of_turn(self) -> int | None:
        """The token that ends the assistant's turn: the first special one the template puts after an answer.

        The tokenizer's end-of-sequence token where the template puts none; None where there is neither.
        """
        if self.template is None:
            special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
            # The answer itself is plain letters, so the first special token is the template's, unless the
            # vocabulary does not know the letters.
            special.discard(self.tokenizer.unk_token_id)
            # Some templates put an empty thought before the answer; its tags end nothing.
            special -= {id for id, token in self.tokenizer.added_tokens_decoder.items() if str(token) in (OPEN, CLOSE)}
            after = self._after_prompt("alpha")
            ending = next((token for token in after or () if token in special), None)
            if ending is not None:
                return ending
        eos: int | None = self.tokenizer.eos_token_id
        return eos

    def answer_tokens(self, text: str) -> list[int]:
        """An answer as training would see it after `encode`: its tokens, then the end of the turn."""
        tokens = self._after_prompt(text)
        if tokens is None:  # the template rewrites earlier turns, so the answer cannot be read off the conversation
            tokens = self._plain_tokens(text)
        if self.end_of_turn is None:
            return tokens
        if self.end_of_turn in tokens:
            tokens = tokens[: tokens.index(self.end_of_turn)]
        return [*tokens, self.end_of_turn]

    def _prompt(self, prompt: str) -> list[int]:
        return self._encode([*self._before(), {"role": "user", "content": prompt}], answering=True)

    @cached_property
    def _ending(self) -> str:
        """What the template writes after the instruction."""
        return str(self.tokenizer.decode(self._prompt("alpha"))).rpartition("alpha")[2]

    def _before(self) -> list[dict[str, str]]:
        return [] if self.system is None else [{"role": "system", "content": self.system}]

    def _after_prompt(self, answer: str) -> list[int] | None:
        """What follows the prompt's tokens once the assistant has said `answer`; None if they change."""
        user = {"role": "user", "content": "alpha"}
        prompt = self._encode([*self._before(), user], answering=True)
        said = {"role": "assistant", "content": answer}
        whole = self._encode([*self._before(), user, said], answering=False)
        return whole[len(prompt) :] if whole[: len(prompt)] == prompt else None

    def _encode(self, messages: list[dict[str, str]], *, answering: bool) -> list[int]:
        if self.template == _PLAIN:
            return self._encode_plain(messages, answering)
        options: dict[str, Any] = {}
        if self._has_control_text(messages):
            if "sanitize_control_tokens" not in inspect.signature(self.tokenizer.apply_chat_template).parameters:
                raise UsageError(
                    "a prompt contains the text of a special token, which this version of transformers would "
                    "take for the token itself; update transformers or remove that text"
                )
            options["sanitize_control_tokens"] = True
        try:
            tokens = self._apply_template(
                messages, add_generation_prompt=answering, tokenize=True, return_dict=False, **options
            )
        except (TemplateError, *FOREIGN_ERRORS) as error:
            raise UsageError(self._failure(messages, error)) from None
        return list(tokens)

    def _encode_plain(self, messages: list[dict[str, str]], answering: bool) -> list[int]:
        content = {message["role"]: message["content"] for message in messages}
        text = f"{content['system']}\n\n" if "system" in content else ""
        text += f"User: {content['user']}\nAssistant:"
        if not answering:
            text += f" {content['assistant']}"
        tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=True, split_special_tokens=True)
        # Some tokenizers also close the text, which is for the answer to do.
        if len(tokens) > 1 and tokens[-1] == self.tokenizer.eos_token_id:
            tokens = tokens[:-1]
        return tokens

    def _plain_tokens(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return tokens

    def _has_control_text(self, messages: list[dict[str, str]]) -> bool:
        return any(control in message["content"] for message in messages for control in self._controls)

    @cached_property
    def _controls(self) -> tuple[str, ...]:
        added = (str(token.content) for token in self.tokenizer.added_tokens_decoder.values())
        return tuple({text for text in (*added, *self.tokenizer.all_special_tokens) if text.strip()})

    def _failure(self, messages: list[dict[str, str]], error: Exception) -> str:
        reason = " ".join(str(error).split())
        template = f"the chat template of {_name(self.tokenizer)}"
        if messages[0]["role"] == "system":
            try:
                ChatFormat(self.tokenizer, template=self.template)
            except UsageError as other:
                return str(other)
            return f"{template} rejects a system prompt ({reason}); leave it out"
        return f"{template} fails: {reason}"


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or "this model")


def common_suffix(sequences: Sequence[Sequence[int]]) -> list[int]:
    common: list[int] = []
    for column in zip(*(reversed(sequence) for sequence in sequences), strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return common[::-1]
