"""The verb `judge`: verdicts on answers that any tool recorded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call
from weight_edit.cli.options import Json, Overwrite, Quiet

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.evaluation.judging import JudgedAnswers


def judge(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON Lines, a JSON list or a CSV of answers: evaluate's, lm-eval's samples, anybody's.",
        ),
    ],
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,KEY=VALUE]", help="A judge; several are compared, the first decides. [default: phrases]"
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="KEY|FILE", help="Human labels, a key of the lines or a file: how far to trust the judge."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many answers alone.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same lines, with `verdict` and `judgements`.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge recorded answers of any tool, and hold judges against one another and against human labels.

    Lines have the answer under `answer`, `response`, `completion`, `output`, `generation`, `text` or lm-eval's `resps`.
    Labels are verdicts, words such as refusal and compliance, or 1 and 0; write `--labels KEY:answered` where 1 is an
    answer that complies.

    Example: `weight-edit judge answers.jsonl --labels human --out judged.jsonl`
    """

    def work() -> "JudgedAnswers":
        from weight_edit.evaluation.judging import judge_answers
        from weight_edit.evaluation.registry import DEFAULT_JUDGES

        return judge_answers(file, judge or DEFAULT_JUDGES, labels=labels, out=out, limit=limit, overwrite=overwrite)

    def show(result: "JudgedAnswers", console: "Console") -> None:
        from weight_edit.cli.tables.judged import judged_answers

        judged_answers(result, console)

    call(work, show, as_dict, as_json=as_json, quiet=quiet, kept="nothing was written")
