"""Benchmarks of EleutherAI's lm-evaluation-harness on a model and its base."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.whole_file import check_free, save_whole
from weight_edit.errors import FOREIGN_ERRORS, UsageError, first_line
from weight_edit.evaluation.harness.comparison import HarnessComparison
from weight_edit.evaluation.harness.request import HarnessRequest
from weight_edit.evaluation.harness.results import HarnessResult, result_of
from weight_edit.evaluation.harness.results_file import are_harness_results, are_harness_samples
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.loading import Model
from weight_edit.runtime.quiet import quiet_transformers
from weight_edit.utils.json import json_safe
from weight_edit.utils.names import unknown
from weight_edit.utils.progress import announce, bar, starting

RESULTS = "results.json"
_BASE, _MODEL = "base", "model"
_MACHINE = ("pretty_env_info", "git_hash", "upper_git_hash")
"""What lm-eval notes of the machine and of the folder it was called in, which is nobody's business elsewhere."""


Loaded = Callable[[], tuple[Model, ChatFormat | None]]
"""Gives a model, and the chat format that documents are put into; None where they are not."""


class Harness:
    """lm-eval with its tasks found and their data at hand, before any model is loaded.

    Args:
        request: from `harness_request`.
        beside_base: whether a base is measured, too.
        overwrite: replace earlier results in the request's folder.

    Raises:
        UsageError: no such task, its data cannot be had, or results that are there already.
    """

    def __init__(self, request: HarnessRequest, *, beside_base: bool = False, overwrite: bool = False) -> None:
        self.request = request
        if request.out is not None:
            for whose in (_BASE, _MODEL) if beside_base else (_MODEL,):
                check_free(request.out / whose / RESULTS, overwrite, are_harness_results)
                for samples in sorted((request.out / whose).glob("samples_*.jsonl")):
                    check_free(samples, overwrite, are_harness_samples)
        with starting(), _quiet_harness():
            from lm_eval.tasks import TaskManager

            with bar("lm-eval's tasks"):
                self._manager = TaskManager(
                    include_path=None if request.tasks_path is None else str(request.tasks_path.resolve())
                )
                self._check_tasks()

    def measure(self, load_model: Loaded, load_base: Loaded | None = None) -> HarnessComparison:
        """The benchmarks of a model, beside those of its base, which is gone before the model is loaded.

        What lm-eval found of the base is told on stderr, and written where the request says so, before the model is
        loaded.

        Raises:
            UsageError: lm-eval fails, or its results cannot be written.
        """
        base = None if load_base is None else self._measured(load_base, _BASE)
        return HarnessComparison(self._measured(load_model, _MODEL), base)

    def _check_tasks(self) -> None:
        known = self._manager.all_tasks
        for name in self.request.tasks:
            if name not in known:
                raise UsageError(f"{unknown('task of lm-eval', name, known)} (`lm_eval ls tasks` lists them)")
        try:
            self._manager.load(list(self.request.tasks))
        except FOREIGN_ERRORS as error:
            raise self._failure(error) from None

    def _measured(self, load: Loaded, whose: str) -> HarnessResult:
        """One model's benchmarks, told on stderr and written."""
        from weight_edit.evaluation.harness.language_model import HarnessModel

        model, chat = load()
        with _quiet_harness(), quiet_transformers():
            ours = HarnessModel(model, chat, batch_size=self.request.batch_size, description=f"lm-eval ({whose})")
            document = self._document(ours, None if chat is None else chat.system)
        result = result_of(model.source.public_name, document)
        for task, figures in result.figures.items():
            shown = ", ".join(
                f"{metric.removesuffix(',none')} {figure.value:.4g}" for metric, figure in figures.items()
            )
            announce(f"lm-eval, {whose}: {task}: {shown}")
        if self.request.out is not None:
            _write(self.request.out / whose, result)
        return result

    def _document(self, ours: Any, system: str | None) -> dict[str, Any]:
        """What lm-eval found, as JSON has it."""
        from lm_eval import simple_evaluate

        try:
            document = simple_evaluate(
                model=ours,
                tasks=list(self.request.tasks),
                limit=self.request.limit,
                batch_size=self.request.batch_size,
                log_samples=True,
                apply_chat_template=self.request.chat,
                system_instruction=system,
                task_manager=self._manager,
            )
        except FOREIGN_ERRORS as error:
            raise self._failure(error) from None
        found: dict[str, Any] = json_safe(_plain(document))
        return {key: value for key, value in found.items() if key not in _MACHINE}

    def _failure(self, error: BaseException) -> UsageError:
        return UsageError(f"lm-eval cannot run {', '.join(self.request.tasks)}: {first_line(error)}")


def _write(folder: Path, result: HarnessResult) -> None:
    """Write lm-eval's results and samples, each as lm-eval writes it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror or error}") from None
    save_whole(folder / RESULTS, json.dumps(result.document, indent=2, ensure_ascii=False) + "\n")
    for task, samples in result.samples.items():
        lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
        save_whole(folder / f"samples_{_file_name(task)}.jsonl", "".join(f"{line}\n" for line in lines))


def _file_name(task: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in task)


def _plain(value: Any) -> Any:
    """A value of lm-eval's as JSON has it: numpy's numbers as Python's, other objects by their text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else str(value)


@contextmanager
def _quiet_harness() -> Iterator[None]:
    """Within the context lm-eval logs errors alone and draws no bars; progress is told as that of all other steps."""
    from tqdm import tqdm

    logger = logging.getLogger("lm_eval")
    level, drawn = logger.level, tqdm.__init__

    def undrawn(self: Any, *arguments: Any, **options: Any) -> None:
        drawn(self, *arguments, **{**options, "disable": True})

    logger.setLevel(logging.ERROR)
    # Some of its bars cannot be turned off by an argument.
    tqdm.__init__ = undrawn
    try:
        yield
    finally:
        logger.setLevel(level)
        tqdm.__init__ = drawn
