"""The answers of an evaluation with their verdicts, and their file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from weight_edit.checkpoint.files import read_whole
from weight_edit.checkpoint.whole_file import save_whole
from weight_edit.errors import UsageError, WeightEditError, first_line
from weight_edit.evaluation.loss import Nats
from weight_edit.evaluation.registry import Judgement
from weight_edit.evaluation.spoken import Spoken
from weight_edit.evaluation.verdicts import Verdict

_MOST_ANSWERS = 1 << 30  # bytes of a file


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A prompt with the model's answer and the judges' verdicts.

    Attributes:
        set: "refused", "answered", "over_refused" or "harmless_looking".
        prompt: the instruction.
        answer: the text, special tokens spelled out, without the end of the turn and without a thought before it.
        expected: the right answer where it is known.
        verdict: that of the judge that decides.
        category: the prompt's, where there is one.
        finished: the model ended the answer; False where it was cut at the limit.
        thought: what the model wrote before `</think>`, where it thought; the answer of an unfinished one is "".
        judgements: by the judge's name, the one that decides first.
        tokens: how many the model wrote, thoughts included and the end of the turn not; None where nobody counted.
        lengths: by length in tokens and judge, the verdict on the answer cut there; empty where no lengths were asked.
        nats: what the expected answer costs the model, with its tokens; None where that was not measured.
    """

    set: str
    prompt: str
    answer: str
    expected: str | None
    verdict: Verdict
    category: str | None
    finished: bool
    thought: str | None = None
    judgements: Mapping[str, Judgement] = field(default_factory=dict)
    tokens: int | None = None
    lengths: Mapping[int, Mapping[str, Verdict]] = field(default_factory=dict)
    nats: Nats | None = None

    @property
    def right(self) -> bool:
        """Whether the answer equals the expected one, apart from white space at its ends."""
        return self.expected is not None and self.answer.strip() == self.expected.strip()


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write answers as JSON lines.

    Keys: set, prompt, answer, expected, verdict, category, finished, thought, judgements, tokens, lengths, nats.
    """
    lines = [json.dumps(asdict(answer), ensure_ascii=False) for answer in answers]
    save_whole(path, "".join(f"{line}\n" for line in lines))


def with_answers_kept(
    error: WeightEditError, said: Mapping[str, Sequence[Spoken]], path: Path | None
) -> WeightEditError:
    """A judge's error, once the answers that it should have judged are written where they were to go."""
    if path is None:
        return error
    lines = [
        json.dumps({"set": name, "prompt": reply.prompt, "answer": reply.text, "finished": reply.finished})
        for name, spoken in said.items()
        for reply in (each.reply for each in spoken)
    ]
    save_whole(path, "".join(f"{line}\n" for line in lines))
    return type(error)(f"{error}; the answers are in {path}, for `weight-edit judge`")


def load_answers(path: Path) -> tuple[Answer, ...]:
    """The answers that `write_answers` wrote.

    Raises:
        UsageError: the file is missing, or no such file.
    """
    try:
        # Not splitlines(): answers have characters such as U+2028 in them.
        lines = read_whole(path, _MOST_ANSWERS).decode("utf-8").split("\n")
        read = (Answer(**json.loads(line)) for line in lines if line)
        # The keys of JSON are texts, and its tuples are lists.
        return tuple(
            replace(
                each,
                lengths={int(n): by for n, by in each.lengths.items()},
                nats=None if each.nats is None else Nats(*each.nats),
            )
            for each in read
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no file of answers that was written here: {first_line(error)}") from None
