"""What is asked of lm-eval, checked before it or torch is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weight_edit.errors import UsageError
from weight_edit.evaluation.backends import AUTO, VLLM
from weight_edit.utils.extras import need

_OF_PATHS = ("/", "\\", "*", "?")


@dataclass(frozen=True, kw_only=True)
class HarnessRequest:
    """The tasks that lm-eval runs, and how.

    Attributes:
        tasks: their names.
        limit: the first so many documents of each task; None is all of them.
        tasks_path: a folder with further tasks, whose code runs here; None where there is none.
        chat: whether documents are put into the model's chat template; lm-eval's own default is that they are not.
        out: the folder for lm-eval's own results and samples, one folder in it for each model; None writes none.
        batch_size: sequences at a time.
    """

    tasks: tuple[str, ...]
    limit: int | None = None
    tasks_path: Path | None = None
    chat: bool = False
    out: Path | None = None
    batch_size: int = 8


def check_harness_options(
    harness: str | None,
    *,
    on_prompts: bool,
    of_harness: Mapping[str, object],
    of_prompts: Mapping[str, object],
    backend: str = AUTO,
) -> None:
    """Refuse options that would do nothing.

    Args:
        harness: the tasks; None where none are to be run.
        on_prompts: whether prompt sets are given.
        of_harness, of_prompts: options of the tasks and of the prompt sets by name; None where one is not given.
        backend: what runs models.

    Raises:
        UsageError: one is given without what it is of; or a backend that runs no tasks.
    """
    if harness is None:
        idle, what = of_harness, "harness"
    elif not on_prompts:
        idle, what = of_prompts, "refused"
    else:
        idle, what = {}, ""
    for name, value in idle.items():
        if value is not None:
            raise UsageError(f"`{name}` does nothing without `{what}`; leave it out, or give both", option=(name, what))
    if harness is not None and backend == VLLM:
        raise UsageError(
            "`harness` runs models that transformers loads; leave `backend=vllm` out", option=("harness", "backend")
        )


def harness_request(
    harness: str | Sequence[str],
    *,
    harness_limit: int | None = None,
    harness_tasks_path: str | Path | None = None,
    harness_chat: bool = False,
    harness_out: str | Path | None = None,
    batch_size: int = 8,
) -> HarnessRequest:
    """The request for tasks, which are names separated by commas, or a list of names.

    Args:
        harness: the tasks. A path is refused: a task can name Python functions, so that a file of tasks is a program.
        harness_tasks_path: a folder of tasks that is to be trusted as a program.
        harness_limit, harness_chat, harness_out, batch_size: see `HarnessRequest`.

    Raises:
        UsageError: lm-eval is not installed, no or the same task, a path in place of a name, or no such folder.
    """
    given = harness.split(",") if isinstance(harness, str) else harness
    tasks = tuple(name.strip() for name in given)
    if not tasks or not all(tasks):
        raise UsageError("`harness` takes names of tasks with commas between them", option="harness")
    for name in tasks:
        if any(each in name for each in _OF_PATHS) or name.endswith((".yaml", ".yml", ".py")):
            raise UsageError(
                f"`harness={name!r}`: not the name of a task; tasks of your own are named too, and their folder is "
                "given as `harness_tasks_path`",
                option=("harness", "harness_tasks_path"),
            )
    if len(set(tasks)) < len(tasks):
        raise UsageError("`harness` names a task twice", option="harness")
    if harness_limit is not None and harness_limit < 1:
        raise UsageError(f"`harness_limit={harness_limit}`: give at least 1", option="harness_limit")
    folder = None if harness_tasks_path is None else Path(harness_tasks_path)
    if folder is not None and not folder.is_dir():
        raise UsageError(f"`harness_tasks_path={str(folder)!r}`: there is no such folder", option="harness_tasks_path")
    need("lm_eval", "running tasks of lm-eval")
    return HarnessRequest(
        tasks=tasks,
        limit=harness_limit,
        tasks_path=folder,
        chat=harness_chat,
        out=None if harness_out is None else Path(harness_out),
        batch_size=batch_size,
    )
