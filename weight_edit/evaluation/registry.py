"""The registry of judges: each is one file in `judges/` with `@judge("its-name")`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.evaluation.judge_usage import noted_usage
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.utils.registry import Function, Named, Registry


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer as a model gave it, with what is needed to judge it.

    Attributes:
        prompt: the request; None where only the answer was recorded.
        text: the answer with its special tokens spelled out, without the end of the turn; thoughts and channels are
            still in it.
        finished: whether the model ended it; False where it was cut at a limit.
        opened: whether the prompt ended within a thought, so that the text begins inside one.
        control: the tokenizer's special tokens, which no answer should contain.
    """

    prompt: str | None
    text: str
    finished: bool = True
    opened: bool = False
    control: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A judge's verdict on one reply.

    Attributes:
        verdict: what the answer is.
        reason: in a few words: the phrase that was found, the guard model's label, the loop's period.
        position: the character of the answer's text where a decisive phrase begins; None where none decided.
        language: of the answer, as an ISO 639-1 code, where the judge told it.
        score: of a classifier, its probability of the verdict; None where a judge has none.
    """

    verdict: Verdict
    reason: str | None = None
    position: int | None = None
    language: str | None = None
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Judge(Named[list[Judgement]]):
    """A registered judge: `function(replies, options)` returns one judgement for each reply, in order.

    It is called once with all replies of a run, so that a model is loaded and a server asked once.
    """


JUDGES = Registry(what="judge", package="weight_edit.evaluation.judges", kind=Judge)


def judge(name: str, *, paper: str | None = None, aliases: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Register `function(replies, options)` as a judge, by its name for `--judge`."""
    return JUDGES.register(name, paper=paper, aliases=aliases)


judges, judge_named = JUDGES.all, JUDGES.named


@dataclass(frozen=True, kw_only=True)
class JudgeSpec:
    """A judge by name with its options, as the command line and recipes write it.

    Attributes:
        kind: the judge's name in the registry.
        options: its settings.
        usage: what its calls took so far, for judges on servers: answers, tokens, cost; else empty.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __call__(self, replies: Sequence[Reply]) -> list[Judgement]:
        """One judgement for each reply, in order.

        Raises:
            UsageError: no such judge, or a wrong option.
        """
        with noted_usage() as noted:
            found = judge_named(self.kind)(list(replies), self.options)
        self.usage.update(noted)
        return found

    @classmethod
    def parse(cls, text: str) -> "JudgeSpec":
        """A judge as the command line has it: `phrases`, or with options `endpoint,url=http://127.0.0.1:8000/v1,model=m`.

        Raises:
            UsageError: no such judge, or an option that is no `key=value` or not the judge's.
        """
        kind, *settings = text.split(",")
        options: dict[str, Any] = {}
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals or not key:
                raise UsageError(
                    f"`judges={text}`: write key=value behind the name, such as phrases,language=de", option="judges"
                )
            options[key] = value
        return cls.of(kind, options)

    @classmethod
    def of(cls, kind: str, options: Mapping[str, Any]) -> "JudgeSpec":
        """A judge by its name or another that it answers to, with options, both checked.

        Raises:
            UsageError: no such judge, or a wrong option.
        """
        chosen = judge_named(kind)
        chosen.settings(options)
        return cls(kind=chosen.name, options=options)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: kind, options fit for publication, and usage where there is any."""
        usage = {"usage": dict(self.usage)} if self.usage else {}
        return {"kind": self.kind, "options": self.public_options, **usage}

    @property
    def public_options(self) -> dict[str, Any]:
        """The options fit for publication: no server's address, and of a local path only the last part."""
        return {key: _public(value) for key, value in self.options.items() if not _is_address(value)}

    def __str__(self) -> str:
        return ",".join([self.kind, *(f"{key}={value}" for key, value in self.public_options.items())])


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and "://" in value


def _public(value: Any) -> Any:
    # A Hub id is no path here, unless a folder is called so.
    is_path = isinstance(value, str) and (value.startswith((".", "/", "~", "\\")) or Path(value).exists())
    return Path(value).name if is_path else value


DEFAULT_JUDGES = ("phrases",)


def judge_specs(judges: str | JudgeSpec | Iterable[str | JudgeSpec]) -> tuple[JudgeSpec, ...]:
    """Judges as `evaluate` takes them: one or several, each as the command line writes it or as a `JudgeSpec`.

    Raises:
        UsageError: none, the same one twice, no such judge, or a wrong option.
    """
    given = [judges] if isinstance(judges, str | JudgeSpec) else list(judges)
    if not given:
        raise UsageError("`judges`: name at least one, such as phrases", option="judges")
    specs = tuple(
        JudgeSpec.parse(each) if isinstance(each, str) else JudgeSpec.of(each.kind, each.options) for each in given
    )
    names = [str(spec) for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(
            f"`judges`: {twice} is named twice; name each only once (of two servers, models of different names)",
            option="judges",
        )
    return specs
