"""A request for a search: prompts read and settings checked before torch is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.checkpoint.source.fingerprint import fingerprint
from weight_edit.checkpoint.whole_file import check_free
from weight_edit.directions.file import folder_of, is_directions
from weight_edit.directions.names import check_method, check_positions
from weight_edit.directions.samples import check_search
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UsageError
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.options import FormatOptions, LoadOptions
from weight_edit.utils.progress import starting
from weight_edit.utils.seeds import check_seed

if TYPE_CHECKING:
    from weight_edit.directions.directions import Directions
    from weight_edit.directions.find_folder import SearchFolder
    from weight_edit.prompts.chat import ChatFormat
    from weight_edit.runtime.loading import Model


@dataclass(frozen=True, kw_only=True)
class FindRequest:
    """The prompts and settings of a `find_directions` call, with the same names and defaults."""

    target: tuple[PromptSet, ...]
    baseline: PromptSet
    protect: tuple[PromptSet, ...] = ()
    validation_target: tuple[PromptSet, ...] = ()
    validation_baseline: PromptSet | None = None
    n_train: int = 128
    n_validation: int = 32
    method: str = "mean-difference"
    options: Mapping[str, Any] = field(default_factory=dict)
    positions: str = "template"
    refusal_tokens: Sequence[int | str] | None = None
    rule: SelectionRule = field(default_factory=SelectionRule)
    filter_prompts: bool = True
    best_effort: bool = False
    seed: int = 0

    @classmethod
    def read(
        cls,
        *,
        target: str | Sequence[str],
        baseline: str,
        protect: str | Sequence[str] | None = None,
        validation_target: str | Sequence[str] | None = None,
        validation_baseline: str | None = None,
        **settings: Any,
    ) -> "FindRequest":
        """The request whose prompt sets are read as `load_prompts` reads them.

        Args:
            target, baseline, protect, validation_target, validation_baseline: prompt sets by name or file; several
                targets, and one set to score candidates on for each of them, where there are any.
            settings: the other fields.

        Raises:
            UsageError: prompts that cannot be read, are too few or the same in two roles; or a method, a word for
                positions or a seed that there is not.
        """
        # What is a typo needs no prompts from the Hub.
        check_seed(settings.get("seed", cls.seed))
        check_method(settings.get("method", cls.method))
        check_positions(settings.get("positions", cls.positions))
        request = cls(
            target=_sets(target),
            baseline=load_prompts(baseline),
            protect=_sets(protect),
            validation_target=_sets(validation_target),
            validation_baseline=None if validation_baseline is None else load_prompts(validation_baseline),
            **settings,
        )
        check_search(
            request.target,
            request.baseline,
            request.protect,
            request.validation_target,
            request.validation_baseline,
            n_train=request.n_train,
            n_validation=request.n_validation,
        )
        return request

    @property
    def sets(self) -> list[PromptSet | None]:
        """Every set, by its role in the order of the fields."""
        return [*self.target, self.baseline, *self.protect, *self.validation_target, self.validation_baseline]

    def run(
        self,
        model: "Model",
        chat_format: "ChatFormat",
        scores: "Path | SearchFolder",
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> "Directions":
        """Find the directions in a loaded model; arguments and errors as of `find_directions`."""
        from weight_edit.directions.find import find_directions

        return find_directions(
            model,
            self.target,
            self.baseline,
            chat_format=chat_format,
            scores=scores,
            resume=resume,
            overwrite=overwrite,
            best_effort=self.best_effort,
            **self._searched(),
        )

    def run_by_name(
        self,
        model: str,
        out: Path,
        *,
        load_options: LoadOptions,
        format_options: FormatOptions,
        resume: bool = False,
        overwrite: bool = False,
    ) -> "Directions":
        """Find the directions in a named model, which is loaded only when needed, and save them.

        What is found is kept in `folder_of(out)` as it comes. Where an earlier search of the same inputs is complete
        there, the choice is made of it and no model is loaded.

        Args:
            model: as in `load`.
            out: the file to write, see `check_directions_file`.
            resume: go on with an earlier search, and replace the file that was chosen of it.
            overwrite: replace a file that is there, and begin anew.

        Raises:
            UsageError: as `find_directions`; before torch is imported where the dtype is wrong.
            UnsupportedError: as `find_directions`.
        """
        check_dtype(load_options.dtype)
        # The imports take seconds, so that all that is told without them comes first.
        with starting():
            from weight_edit.directions.choice import chosen, rule_for
            from weight_edit.directions.find import search_inputs
            from weight_edit.directions.find_folder import SearchFolder, found_earlier
            from weight_edit.directions.registry import finder_named

        found_earlier(folder_of(out), resume=resume, overwrite=overwrite)
        finder = finder_named(self.method)
        rule = rule_for(finder, self.rule)
        # A misspelt option is said before a large model is fetched and loaded.
        finder.settings(self.options)
        chat_format = load_options.chat_format(model, format_options)
        asked = search_inputs(
            model=fingerprint(load_options.source(model).path),
            dtype=load_options.dtype,
            chat_format=asdict(format_options),
            target=self.target,
            baseline=self.baseline,
            **{**self._searched(), "rule": rule},
        )
        kept = SearchFolder.open(folder_of(out), asked, resume=resume, overwrite=overwrite)
        if kept.searched is not None and kept.complete(rule.layers(kept.searched.layers), rule.select == "cosmic"):
            found = chosen(kept, rule, best_effort=self.best_effort)
        else:
            found = self.run(load_options.load(model), chat_format, kept)
        found.save(out)
        return found

    def _searched(self) -> dict[str, Any]:
        """The request's keyword arguments of `find_directions`, without `best_effort`."""
        left_out = ("target", "baseline", "best_effort")
        return {name: value for name, value in vars(self).items() if name not in left_out}


def check_directions_file(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output file that cannot be written, before the search begins.

    Args:
        resume: an earlier search beside the file is gone on with, so that the file may be there.
        overwrite: a file of directions may be there.

    Raises:
        UsageError: its folder is not there, or a file is that may not be replaced.
    """
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} for {out.name}; make it first")
    check_free(out, overwrite or (resume and folder_of(out).is_dir()), is_directions)


def _sets(specs: str | Sequence[str] | None) -> tuple[PromptSet, ...]:
    return tuple(load_prompts(spec) for spec in ([specs] if isinstance(specs, str) else specs or ()))
