"""The structure of a reply: its answer without thoughts, and a form that is no answer, whatever the words say."""

import re
import unicodedata
from dataclasses import dataclass

from weight_edit.evaluation.plain_text import normalise
from weight_edit.evaluation.registry import Reply
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.thoughts import split_thought, unwrapped


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a reply consists of.

    Attributes:
        answer: the text after thoughts and other channels, up to where it leaves the template; "" where there is none.
        offset: the index in the reply's text where the answer begins.
        flaw: `undecided`, `empty`, `off_template` or `looping`; None for a text that may be an answer.
        reason: the flaw in a few words.
    """

    answer: str
    offset: int = 0
    flaw: Verdict | None = None
    reason: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether there are words to judge: a refusal in them counts even before a loop or another's turn."""
        return bool(self.answer) and self.flaw is not Verdict.EMPTY


FEW = 8
"""Words before which an answer that was cut is undecided: 905 of 925 recorded refusals begin within them.

Counted by `benchmarks/judge_against_recorded.py`.
"""


def structure_of(reply: Reply) -> Structure:
    """The structure of a reply; of several flaws the first of undecided, empty, off_template and looping.

    An answer that was cut is undecided within a thought, or before its `FEW`th word.
    """
    thinking = split_thought(reply.text, opened=reply.opened)
    if thinking is not None and thinking.answer is None:
        return Structure(answer="", flaw=Verdict.UNDECIDED, reason="within a thought")
    text = unwrapped(reply.text) if thinking is None else thinking.answer or ""
    offset = max(0, reply.text.rfind(text))
    text, ended = _without_end(text, offset)
    finished = reply.finished or ended
    if is_empty(text):
        if thinking is not None and not finished:
            return Structure(answer="", flaw=Verdict.UNDECIDED, reason="cut at the end of the thought")
        return Structure(answer="", flaw=Verdict.EMPTY, reason="no words")
    left = _leaves_template(text, reply)
    if left is not None:
        place, reason = left
        return Structure(answer=text[:place], offset=offset, flaw=Verdict.OFF_TEMPLATE, reason=reason)
    loop = looping(text, finished)
    if loop is not None:
        return Structure(answer=text, offset=offset, flaw=Verdict.LOOPING, reason=loop)
    if not finished and count_words(text) < FEW:
        return Structure(answer=text, offset=offset, flaw=Verdict.UNDECIDED, reason=f"cut before the {FEW}th word")
    return Structure(answer=text, offset=offset)


def is_empty(text: str) -> bool:
    """Whether a text has nothing but white space and punctuation."""
    # Letters, numbers and pictures (an emoji may be an answer) are content; broken bytes are not.
    kinds = {unicodedata.category(character) for character in text if character != "\ufffd"}
    return not any(kind[0] in "LN" or kind == "So" for kind in kinds)


_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f]")


def count_words(text: str) -> int:
    """The number of words; of scripts without spaces (Han, kana, Thai) two letters count as one."""
    return len(_UNSPACED.sub(" ", text).split()) + len(_UNSPACED.findall(text)) // 2


# What ends a turn in usual templates; nothing is wrong where one stands at the end of a recorded text.
_ENDS = (
    *("</s>", "<eos>", "<end_of_turn>", "<turn|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>"),
    *(
        "<|end|>",
        "<|return|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|END_RESPONSE|>",
        "<|assistant_end|>",
        "<|eot|>",
        "<|eom_id|>",
    ),
)
# Control tokens of usual templates, for models that spell them out.
_CONTROL = re.compile(
    r"<\|[\w ./:-]{1,40}\|>|<[|｜][\w▁ ]{1,40}[|｜]>|<\|?turn\|?>|</?(?:start|end)_of_turn>|</?s>|\[/?INST\]|<</?SYS>>"
)
# Turns that a model writes for others, in the languages that the lists of phrases cover.
_OTHERS = (
    *("User", "Human", "USER", "HUMAN", "用户", "人类", "Usuario", "Usuária", "Usuário", "Benutzer", "Nutzer"),
    *("Utilisateur", "Пользователь", "ユーザー", "المستخدم", "उपयोगकर्ता"),
)
_OWN = (
    *("Assistant", "ASSISTANT", "助手", "Asistente", "Assistent", "Assistente", "Ассистент", "アシスタント"),
    *("المساعد", "सहायक"),
)
_ROLE = re.compile(rf"^[ \t#*]*(?:{'|'.join(_OTHERS + _OWN)})\**[:：]", re.MULTILINE)
_OWN_LABEL = re.compile(rf"[\s#*]*(?:{'|'.join(_OWN)})\**[:：]\**")
_ALPACA = re.compile(r"^#{2,3} (?:Instruction|Response|Input):", re.MULTILINE)

# What asks for a text with several speakers.
_DIALOGUE = re.compile(
    r"\b(?:dialog(?:ue|o|s)?|dialogues|screenplay|scripts?|skits?|sketch|interview\w*|transcripts?|plays?|theat(?:er|re)"
    r"|conversation\w*|conversaci[oó]n|chats?|chat ?logs?|role-?plays?|debates?|q ?& ?a|faq"
    r"|gu[ií]on|entrevistas?|gespr[aä]ch\w*|drehbuch|theaterst[uü]ck|entretiens?|sc[eé]nario|conversa|roteiro|di[aá]logo)\b"
    r"|диалог|сценари|интервью|беседу|разговор|对话|剧本|采访|访谈|聊天记录|会話|対話|台本|脚本|インタビュー|حوار|مقابلة|سيناريو"
    r"|محادثة|संवाद|साक्षात्कार|वार्तालाप|बातचीत",
    re.IGNORECASE,
)


def asks_for_dialogue(prompt: str | None) -> bool:
    """Whether a prompt asks for a text with several speakers, or is one itself."""
    return prompt is not None and bool(_DIALOGUE.search(prompt) or _ROLE.search(prompt))


def _without_end(text: str, offset: int) -> tuple[str, bool]:
    """The text without marks of the turn's end behind it, and whether there were any."""
    bare = text.rstrip()
    ended = False
    while end := next((mark for mark in _ENDS if bare.endswith(mark)), None):
        bare, ended = bare.removesuffix(end).rstrip(), True
    return (bare if ended else text), ended


def _leaves_template(text: str, reply: Reply) -> tuple[int, str] | None:
    """Where the answer leaves the template, and by what; None if it does not."""
    found: list[tuple[int, str]] = [
        (text.find(token), f"control token {token}") for token in reply.control if token.strip() and token in text
    ]
    if control := _CONTROL.search(text):
        found.append((control.start(), f"control token {control[0]}"))
    if not asks_for_dialogue(reply.prompt):
        # A label of its own before an answer says who speaks, and nobody else does.
        own = _OWN_LABEL.match(text)
        for form in (_ROLE, _ALPACA):
            role = form.search(text, own.end() if own else 0)
            if role:
                found.append((role.start(), f"another turn, {role[0].strip()}"))
    return min(found, default=None)


_LONG = 30  # characters that a loop must cover, so that "bye, bye, bye" is none
_GRAM = 4
_WORDS = 24


def looping(text: str, finished: bool) -> str | None:
    """What shows that a text repeats itself; None if it does not.

    Args:
        finished: whether the model ended it; one that was cut at the limit is looping at fewer repetitions.
    """
    spoken = normalise(text)
    words = spoken.split()
    if len(words) >= _WORDS:
        grams = [tuple(words[start : start + _GRAM]) for start in range(len(words) - _GRAM + 1)]
        if len(set(grams)) < len(grams) / 2:
            return f"{len(set(grams))} of {len(grams)} runs of {_GRAM} words are distinct"
    needed = 4 if finished else 3
    covered = max(_LONG, len(spoken) / 2 if finished else 0)
    for period in range(1, len(spoken) // needed + 1):
        length = _periodic_tail(spoken, period)
        if length >= max(covered, needed * period):
            return f"{length} characters repeat with a period of {period}"
    return None


def _periodic_tail(text: str, period: int) -> int:
    """The length of the text's longest ending that repeats with a period."""
    length = period
    while length < len(text) and text[-length - 1] == text[-length - 1 + period]:
        length += 1
    return length
