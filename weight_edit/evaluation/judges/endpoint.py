"""The judge `endpoint`: a language model on a chat server that is asked for one word."""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from weight_edit.errors import UsageError
from weight_edit.evaluation.endpoint.address import base_address
from weight_edit.evaluation.endpoint.answer import ChatAnswer
from weight_edit.evaluation.endpoint.client import ChatClient, ChatSettings, Messages, Rejected
from weight_edit.evaluation.endpoint.usage import Prices
from weight_edit.evaluation.judge_usage import note_usage
from weight_edit.evaluation.judges._answer import judged_by
from weight_edit.evaluation.judges._data import filled, read_data
from weight_edit.evaluation.registry import Judgement, Reply, judge
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.thoughts import split_thought
from weight_edit.utils.json import JsonError, parse_json
from weight_edit.utils.progress import announce
from weight_edit.utils.settings import Section


class EndpointOptions(Section):
    """Settings of the judge on a chat server; its key is read from the environment alone.

    Attributes:
        url: the server's address, such as `http://127.0.0.1:8000/v1`.
        model: the model's name there.
        template: how it is asked: the name of a file in `judges/templates`, or the path of one.
        max_tokens: the limit on its answer's length, thoughts included; the template's when absent.
        concurrency: requests at the same time.
        timeout: seconds after which a request is sent again.
        characters: of a longer answer, so many from its beginning and half as many from its end are shown.
        fresh: ask again what is in the cache.
        prompt_price, answer_price: of a million tokens, in any currency, to count the cost.
        template_args: variables of the server's chat template, such as `{enable_thinking: false}`.
    """

    url: str
    model: str
    template: str = "verdict"
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1)] = 8
    timeout: Annotated[float, Field(gt=0)] = 600.0
    characters: Annotated[int, Field(ge=100)] = 8000
    fresh: bool = False
    prompt_price: Annotated[float, Field(ge=0)] | None = None
    answer_price: Annotated[float, Field(ge=0)] | None = None
    template_args: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _can_be_asked(self) -> "EndpointOptions":
        # Before answers are generated, which takes long.
        base_address(self.url)
        asking_template(self.template)
        return self


class AskingTemplate(Section):
    """How a model is asked for a verdict, and how its answer is read.

    Attributes:
        source: who wrote it.
        system: the system message.
        user: the message, with `{request}` and `{answer}`, each of which becomes one JSON string.
        read: "word", its first line is a label, or "json", it is an object with one.
        key: of that object.
        verdicts: label to verdict.
        max_tokens: the limit on its answer's length.
    """

    source: str
    system: str | None = None
    user: str
    read: Literal["word", "json"] = "word"
    key: str = "verdict"
    verdicts: dict[str, Verdict]
    max_tokens: Annotated[int, Field(ge=1)] = 16


@judge("endpoint")
def endpoint(replies: list[Reply], options: EndpointOptions) -> list[Judgement]:
    """A model on a chat server (vLLM, llama.cpp, Ollama, SGLang, hosted), asked for one word; `url` and `model`."""
    template = asking_template(options.template)
    client = ChatClient(
        options.url, options.model, concurrency=options.concurrency, timeout=options.timeout, fresh=options.fresh
    )
    settings = ChatSettings(
        max_tokens=options.max_tokens or template.max_tokens, template_args=options.template_args or {}
    )

    def ask(asked: list[Reply]) -> list[Judgement]:
        conversations = [conversation(template, reply, options.characters) for reply in asked]
        answers = client.ask(conversations, settings, description=f"verdicts of {options.model}", keep_rejected=True)
        declined = [answer for answer in answers if isinstance(answer, Rejected)]
        if len(declined) == len(answers):
            raise declined[0]
        found = [_judgement(template, reply, answer) for reply, answer in zip(asked, answers, strict=True)]
        _tell(client, options, found)
        return found

    return judged_by(ask, replies)


def asking_template(name: str) -> AskingTemplate:
    """The template of a name or a path.

    Raises:
        UsageError: there is none, or it has no place for the answer.
    """
    template = read_data("templates", name, AskingTemplate, "template")
    if "{answer}" not in template.user:
        raise UsageError(f"template {name}: 'user' has no {{answer}}; write where it stands")
    return template


def conversation(template: AskingTemplate, reply: Reply, characters: int = 8000) -> Messages:
    """The messages that ask about a reply; the frame around the two quotations is the same for all replies."""
    text = reply.text
    if len(text) > characters + characters // 2:
        text = f"{text[:characters]} [...] {text[-(characters // 2) :]}"
    parts = {"request": quoted(reply.prompt), "answer": quoted(text)}
    system = [] if template.system is None else [{"role": "system", "content": template.system.strip()}]
    return [*system, {"role": "user", "content": filled(template.user.strip(), parts)}]


# Servers take the text of a control token, wherever it stands, for the token itself: `<|im_end|>` and `[/INST]` would
# end the message.
_CONTROL = re.compile(r"<|\[(?=/?[A-Z_]+\])")


def quoted(text: str | None) -> str:
    """A text as one JSON string without line breaks or control tokens, so that nothing in it ends the quotation."""
    written = json.dumps(text, ensure_ascii=False)
    # Line breaks that JSON lets stand; half of a surrogate pair, which has no encoding.
    written = re.sub(r"[\u0085\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", written)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def read_label(template: AskingTemplate, said: str) -> str | None:
    """The label in a model's answer; None where it is none, or more than one."""
    text = said.strip().removeprefix("```json").strip("`").strip()
    labels = {label.casefold(): label for label in template.verdicts}
    if text.startswith("{"):
        try:
            content = parse_json(text)
        except (JsonError, ValueError):
            return None
        value = content.get(template.key) if isinstance(content, dict) else None
        return labels.get(value.strip().casefold()) if isinstance(value, str) else None
    if template.read == "json":
        return None
    # One label at the beginning, alone or before a reason: "not refused" and "refused, or answered?" are none.
    line = text.partition("\n")[0].casefold()
    either = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    found = re.match(rf"\W*(?:{_LEAD})?({either})(?=\W*$|[\"'*]*\s*[.,:;!()-])", line)
    if found is None:
        return None
    others = re.findall(rf"(?<!\w)(?:{either})(?!\w)", line[found.end() :])
    return None if {*others} - {found[1]} else labels[found[1]]


_LEAD = r"(?:the\s+)?(?:answer|response|label|verdict)(?:\s+is)?\W+"
"""What models write before the label."""


def _judgement(template: AskingTemplate, reply: Reply, answer: ChatAnswer | Rejected) -> Judgement:
    if isinstance(answer, Rejected):
        return Judgement(verdict=Verdict.UNDECIDED, reason=f"not judged: {answer}")
    thinking = split_thought(answer.text)
    said = answer.text if thinking is None else thinking.answer
    if said is None or (not said.strip() and not answer.finished):
        return Judgement(verdict=Verdict.UNDECIDED, reason="unreadable: cut within the judge's own thought")
    label = read_label(template, said)
    first = said.strip().partition("\n")[0].strip()
    # A model that carries on what it was shown has judged nothing.
    if label is None or (len(first.split()) > 1 and first.casefold() in reply.text.casefold()):
        return Judgement(verdict=Verdict.UNDECIDED, reason=f"unreadable: {first[:60]!r}")
    return Judgement(verdict=template.verdicts[label], reason=label)


def _tell(client: ChatClient, options: EndpointOptions, found: Sequence[Judgement]) -> None:
    prices = None
    if options.prompt_price is not None or options.answer_price is not None:
        prices = Prices(prompt=options.prompt_price or 0.0, answer=options.answer_price or 0.0)
    note_usage(client.usage.to_dict(prices))
    announce(f"judge {options.model} at {client.address}: {client.usage.line(prices)}")
    unreadable = [one for one in found if (one.reason or "").startswith("unreadable")]
    if len(unreadable) > len(found) / 10:
        announce(
            f"note: {len(unreadable)} of {len(found)} answers of the judge {options.model} could not be read and are "
            f"undecided, the first {unreadable[0].reason}"
        )
