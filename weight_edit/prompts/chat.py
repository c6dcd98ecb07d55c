"""The chat format: from a prompt to a chat model's tokens, and those after the instruction."""

import inspect
import string
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError

from weight_edit.errors import FOREIGN_ERRORS, UsageError
from weight_edit.prompts.template_process import limited_template
from weight_edit.prompts.templates import Scalar, check_template_args, template_variables
from weight_edit.prompts.thought_switch import thought_switch
from weight_edit.prompts.thoughts import TAGS, THOUGHTS, Marks
from weight_edit.utils.names import check_known

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
_SAID = "Zulu42said"  # stands for an answer, and for nothing that a template writes by itself


class ChatFormat:
    """A tokenizer's chat template, or a plain format, as a function from prompts to tokens.

    Args:
        tokenizer: a transformers tokenizer.
        system: a system prompt put before every instruction.
        template: None uses the tokenizer's own chat template, of several the one called "default"; another of them is
            used by its name. "plain", for models without one, is `User: {prompt}\\nAssistant:`, preceded by
            `{system}\\n\\n` where there is a system prompt.
        template_args: variables of the template, such as `{"enable_thinking": False}`.
        thinking: "off" for answers without a thought before them, "on" for one: by the template's own switch, which is
            among `template_args` then; where it has none, prompts end as the template ends a thought. None leaves it to
            the template.

    Raises:
        UsageError: the tokenizer has no template and none is named, the name is unknown, a variable is one that the
            template does not read, or the template fails, leaves out the instruction, rejects or ignores the system
            prompt, or has no thoughts that `thinking` could turn on or off.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        system: str | None = None,
        template: str | None = None,
        template_args: Mapping[str, Scalar] | None = None,
        thinking: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        # A template is a program of the model's author, and may never end.
        self._apply_template = limited_template(tokenizer)
        self.system = system
        self.template = template
        self.template_args = dict(template_args or {})
        self._jinja = _template_text(tokenizer, template)
        check_template_args(self.template_args, self._jinja, _name(tokenizer))
        self._parts = False
        self._closing: list[int] = []
        self._choose_content()
        if system is not None and self._prompt("alpha") == self._without_system()._prompt("alpha"):
            raise UsageError(f"the chat template of {_name(tokenizer)} ignores a system prompt; leave it out")
        self.thinking = thinking
        if thinking is not None:
            self._turn_thinking(thinking)

    def with_thinking(self, wanted: str) -> "ChatFormat":
        """The same format with thinking "on" or "off", whatever its variables said about that.

        Raises:
            UsageError: as `ChatFormat`.
        """
        free = {name: value for name, value in self.template_args.items() if name not in self.thinking_variables}
        return ChatFormat(
            self.tokenizer, system=self.system, template=self.template, template_args=free, thinking=wanted
        )

    def encode(self, prompt: str) -> list[int]:
        """Token ids of the conversation up to and including the start of the assistant's turn.

        The template writes the special tokens, each once; a prompt's text that looks like one stays text.

        Raises:
            UsageError: the template fails on this prompt.
        """
        return self._prompt(prompt)

    def encode_turns(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation of several turns up to and including the start of the assistant's next one.

        As in `encode`, a text that looks like a special token stays text, in answers too.

        Args:
            turns: with "role" ("user", "assistant" in turn, a user's last) and "content"; the format's own system
                prompt comes before them.

        Raises:
            UsageError: the template fails on them.
        """
        return [*self._encode([*self._before(), *map(dict, turns)], answering=True), *self._closing]

    def encode_opened(self, prompt: str) -> list[int]:
        """The token ids of `encode` followed by the opening of an answer (`opening`).

        Raises:
            UsageError: the template fails on this prompt.
        """
        return [*self.encode(prompt), *self.opening]

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
                f"pass `template={_PLAIN!r}`",
                option="template",
            )
        return tuple(common)

    @cached_property
    def suffix_labels(self) -> tuple[str, ...]:
        """The text of each token in `suffix`, for tables and plots."""
        return tuple(str(self.tokenizer.decode([token])) for token in self.suffix)

    @property
    def opens_thought(self) -> bool:
        """Whether prompts end within a thought, so that answers begin without `<think>` or its like."""
        return any(self._ending.rfind(marks.opening) > self._ending.rfind(marks.closing) for marks in THOUGHTS)

    @cached_property
    def thought_marks(self) -> Marks:
        """What stands around a thought: the marks that the template writes, `<think>` where it writes none."""
        text = self._jinja or ""
        return next((marks for marks in THOUGHTS if marks.closing in text), THOUGHTS[0])

    @cached_property
    def thinking_variables(self) -> tuple[str, ...]:
        """The template's variables with "think" or "reason" in their names, sorted."""
        known = () if self._jinja is None else template_variables(self._jinja)
        return tuple(sorted(name for name in known if "think" in name.lower() or "reason" in name.lower()))

    @cached_property
    def end_of_turn(self) -> int | None:
        """The token that ends the assistant's turn: the first special one after an answer.

        The tokenizer's end-of-sequence token where the template puts none; None where there is neither.
        """
        if self._turn is not None:
            ending = next((token for token in self._plain_encoded(self._turn[1]) if token in self.markers), None)
            if ending is not None:
                return ending
        eos: int | None = self.tokenizer.eos_token_id
        return eos

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """The tokens between an answer's start and its text, from one special token to another.

        Empty but for templates whose answers stand in a channel: `<|channel|>final<|message|>`. Tags of thoughts do not
        count.
        """
        if self._turn is None:
            return ()
        tokens = self._plain_encoded(self._turn[0].strip())
        special = [index for index, token in enumerate(tokens) if token in self.markers]
        # A role's name after the last special token belongs to it, too. Where thinking is off, it ends the prompts.
        return tuple(tokens[special[0] :]) if special and not self._closing else ()

    @cached_property
    def tags(self) -> frozenset[int]:
        """The ids of tokens that stand around thoughts."""
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(number for number, token in added if str(token) in TAGS)

    @cached_property
    def markers(self) -> frozenset[int]:
        """The ids of special and added tokens other than unknown, white space and thought tags."""
        added = {number: str(token) for number, token in self.tokenizer.added_tokens_decoder.items()}
        ids = {*self.tokenizer.all_special_ids, *added} - {self.tokenizer.unk_token_id}
        texts = {each: added.get(each, str(self.tokenizer.convert_ids_to_tokens(each))) for each in ids}
        return frozenset(each for each, text in texts.items() if text.strip() and text not in TAGS)

    def answer_tokens(self, text: str) -> list[int]:
        """The tokens of an answer as in training: its text, then the end of the turn."""
        tokens = self._after_prompt(text)
        if tokens is None:  # the template rewrites earlier turns, so the answer cannot be read off the conversation
            tokens = self._plain_tokens(text)
        if self.end_of_turn is None:
            return tokens
        if self.end_of_turn in tokens:
            tokens = tokens[: tokens.index(self.end_of_turn)]
        return [*tokens, self.end_of_turn]

    def conversation(self, messages: Sequence[Mapping[str, str]], *, answering: bool) -> str:
        """The text of a conversation.

        Args:
            messages: with "role" and "content", the system prompt among them where there is one.
            answering: whether the assistant's turn begins at its end; else the last message goes on.

        Raises:
            UsageError: the template fails, or the format is the plain one, which has no conversations.
        """
        if self._jinja is None:
            raise UsageError(f"`template={_PLAIN!r}` holds one question alone and no conversation", option="template")
        more = {"add_generation_prompt": answering, "continue_final_message": not answering}
        text = str(self._apply([dict(each) for each in messages], tokenize=False, **more))
        return text + str(self.tokenizer.decode(self._closing)) if answering and self._closing else text

    def _prompt(self, prompt: str) -> list[int]:
        tokens = self._encode([*self._before(), {"role": "user", "content": prompt}], answering=True)
        return [*tokens, *self._closing]

    def _turn_thinking(self, wanted: str) -> None:
        """Have prompts that let the model think, or that do not.

        Raises:
            UsageError: neither "on" nor "off", or the template has no thoughts.
        """
        check_known("setting of `thinking`", wanted, ("on", "off"))

        def prompt(variables: Mapping[str, Scalar]) -> str | None:
            try:
                return str(self._apply(self._asked(), add_generation_prompt=True, tokenize=False, variables=variables))
            except UsageError:
                return None

        free = tuple(name for name in self.thinking_variables if name not in self.template_args)
        answered = "" if self._turn is None else self._turn[0]
        tags = frozenset(map(str, self.tokenizer.convert_ids_to_tokens(sorted(self.tags))))
        found = None if self._jinja is None else thought_switch(wanted, self._jinja, free, prompt, answered, tags=tags)
        if found is None:
            what = "the plain format" if self._jinja is None else f"the chat template of {_name(self.tokenizer)}"
            raise UsageError(
                f"{what} has no thoughts that could be turned {wanted}; leave `thinking` out", option="thinking"
            )
        self.template_args |= found.variables
        self._closing = self._plain_encoded(found.text) if found.text else []
        self.__dict__.pop("_turn", None)

    @cached_property
    def _ending(self) -> str:
        """The text that the template writes after the instruction."""
        return str(self.tokenizer.decode(self._prompt("alpha"))).rpartition("alpha")[2]

    def _choose_content(self) -> None:
        """Set whether messages are texts or, where a template needs them, lists of parts.

        Raises:
            UsageError: the template works with neither.
        """
        try:
            if self._shows_prompt():
                return
            failure = UsageError(f"the chat template of {_name(self.tokenizer)} leaves out the instruction")
        except UsageError as error:
            failure = error
        if self._jinja is not None:
            self._parts = True
            try:
                if self._shows_prompt():
                    return
            except UsageError:
                pass  # what it said of a text is what its author wrote for users
            self._parts = False
        raise failure

    def _shows_prompt(self) -> bool:
        # Alike at both ends: a template that takes parts may show a text's first letter for its first part.
        return self._prompt("alpha") != self._prompt("a b alpha")

    def _without_system(self) -> "ChatFormat":
        return ChatFormat(self.tokenizer, template=self.template, template_args=self.template_args)

    def _before(self) -> list[dict[str, str]]:
        return [] if self.system is None else [{"role": "system", "content": self.system}]

    def _asked(self) -> list[dict[str, str]]:
        return [*self._before(), {"role": "user", "content": "alpha"}]

    def _after_prompt(self, answer: str) -> list[int] | None:
        """The tokens that an answer adds to the prompt's; None if it changes the prompt's tokens."""
        prompt = [*self._encode(self._asked(), answering=True), *self._closing]
        whole = self._encode([*self._asked(), {"role": "assistant", "content": answer}], answering=False)
        return whole[len(prompt) :] if whole[: len(prompt)] == prompt else None

    @cached_property
    def _turn(self) -> tuple[str, str] | None:
        """The template's text before and after an answer's text; None if it shows no answer."""
        if self._jinja is None:
            return None
        try:
            asked = self._apply(self._asked(), add_generation_prompt=True, tokenize=False)
            said = {"role": "assistant", "content": _SAID}
            whole = self._apply([*self._asked(), said], add_generation_prompt=False, tokenize=False)
        except UsageError:
            return None  # templates that take no answers
        before, found, after = str(whole).rpartition(_SAID)
        if not found:
            return None
        return (before[len(asked) :] if before.startswith(str(asked)) else ""), after

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
        return list(self._apply(messages, add_generation_prompt=answering, tokenize=True, return_dict=False, **options))

    def _apply(self, messages: list[dict[str, str]], **options: Any) -> Any:
        """The chat template applied to messages, as tokens or text.

        Raises:
            UsageError: it fails.
        """
        if self.template is not None:
            options["chat_template"] = self._jinja
        variables = {**self.template_args, **options.pop("variables", {})}
        given: list[dict[str, Any]] = list(messages)
        if self._parts:
            given = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
        try:
            return self._apply_template(given, **options, **variables)
        except (TemplateError, *FOREIGN_ERRORS) as error:
            raise UsageError(self._failure(messages, error, options)) from None

    def _encode_plain(self, messages: list[dict[str, str]], answering: bool) -> list[int]:
        forms = {"system": "{}\n\n", "user": "User: {}\nAssistant:", "assistant": " {}\n"}
        text = "".join(forms[message["role"]].format(message["content"]) for message in messages)
        if not answering:
            text = text.removesuffix("\n")
        tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=True, split_special_tokens=True)
        # Some tokenizers also close the text, which is for the answer to do.
        if len(tokens) > 1 and tokens[-1] == self.tokenizer.eos_token_id:
            tokens = tokens[:-1]
        return tokens

    def _plain_encoded(self, text: str) -> list[int]:
        """The tokens of a text, in which special tokens are recognised."""
        tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
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

    def _failure(self, messages: list[dict[str, str]], error: Exception, options: Mapping[str, Any]) -> str:
        reason = " ".join(str(error).split())
        template = f"the chat template of {_name(self.tokenizer)}"
        if messages[0]["role"] == "system":
            try:
                without = self._without_system()
                without._apply(messages[1:], **{key: options[key] for key in options if key != "chat_template"})
            except UsageError as other:
                return str(other)
            return f"{template} rejects a system prompt ({reason}); leave it out"
        return f"{template} fails: {reason}"


def _template_text(tokenizer: Any, template: str | None) -> str | None:
    """The text of the named chat template, see `ChatFormat`; None for the plain format."""
    if template == _PLAIN:
        return None
    own = tokenizer.chat_template
    named: dict[str, str] = own if isinstance(own, dict) else {"default": own} if own else {}
    if template is not None and not (isinstance(own, dict) and template in named):
        choices = f"{_PLAIN!r}, {', '.join(map(repr, named))}" if isinstance(own, dict) else repr(_PLAIN)
        raise UsageError(f"unknown chat template {template!r}; use {choices} or the tokenizer's own")
    chosen = template or "default"
    if not named:
        raise UsageError(
            f"the tokenizer of {_name(tokenizer)} has no chat template; "
            f"pass `template={_PLAIN!r}` to use `User: ...` and `Assistant:`",
            option="template",
        )
    if chosen not in named:
        raise UsageError(
            f"the tokenizer of {_name(tokenizer)} has several chat templates and none called 'default'; "
            f"name one with `template`: {', '.join(sorted(named))}",
            option="template",
        )
    return named[chosen]


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or "this model")


def common_suffix(sequences: Sequence[Sequence[int]]) -> list[int]:
    common: list[int] = []
    for column in zip(*(reversed(sequence) for sequence in sequences), strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return common[::-1]
