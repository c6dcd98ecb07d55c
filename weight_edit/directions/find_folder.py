"""The progress of a search for directions, kept in a folder so that it can be resumed.

`search.json` says what was asked for and which prompts count, `answers.jsonl` has the model's judged answers,
`candidates.safetensors` what the method found, with the means of the stream, and `scores.jsonl` a line for each
candidate at each stage that it was measured at. `more.jsonl` has the scores of some on further prompts, and
`confirmed.jsonl` the verdicts on answers under the edits of some.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from weight_edit.checkpoint.files import printable, read_json, read_whole
from weight_edit.checkpoint.whole_file import append_line, is_unfinished, save_whole
from weight_edit.directions.candidate import Candidate
from weight_edit.directions.judged_answers import JudgedAnswer, Place, from_row, to_row
from weight_edit.directions.scores import (
    CandidateScore,
    Similarity,
    Values,
    score_of,
    with_more,
    with_similarity,
    worth_scoring,
)
from weight_edit.directions.separation import Separation
from weight_edit.errors import UsageError
from weight_edit.utils.json import parse_json

SEARCH, CANDIDATES, SCORES, ANSWERS, MORE, CONFIRMED = FILES = (
    *("search.json", "candidates.safetensors", "scores.jsonl"),
    *("answers.jsonl", "more.jsonl", "confirmed.jsonl"),
)

_KEY = "weight_edit"

_ARGUMENTS = (
    "dtype",
    "filter_prompts",
    "max_layer_fraction",
    "method",
    "n_train",
    "n_validation",
    "options",
    "positions",
    "seed",
    "select",
)
"""Inputs that are arguments of `find_directions` or of `load`, by their own names."""


@dataclass(frozen=True, kw_only=True)
class Metering:
    """The refusal tokens, which prompts count, and the mean refusal metric of each class.

    Attributes:
        tokens: ids of the refusal tokens.
        keep: for each sample, targets first and the baseline last, which training and which validation prompts count.
        means: the mean metric of the validation prompts in use, "target" and "baseline".
        opens: of each token how many refusals and other answers it opens, where they are from judged answers.
        heard: how many answers to prompts of each class were judged, and how many of them refused; empty where none.
        warnings: what the user should read of it.
        more: for each sample, which of the further validation prompts count; None before that was asked.
    """

    tokens: tuple[int, ...]
    keep: tuple[tuple[tuple[bool, ...], tuple[bool, ...]], ...]
    means: Mapping[str, float]
    opens: tuple[Mapping[str, int], ...] = ()
    heard: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    more: tuple[tuple[bool, ...], ...] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Searched:
    """A method's candidates before scoring, with everything else that the choice needs.

    Attributes:
        candidates: in the method's order.
        separations: of each, at its place; None where it has none.
        target_mean, baseline_mean: of the stream, (positions, layers, d_model) float64.
        positions: the places' positions; None stands for the mean over all tokens.
        facts: JSON values that every directions file of this search says of itself.
        warnings: sentences that the user should read.
    """

    candidates: Sequence[Candidate]
    separations: Sequence[Separation | None]
    target_mean: Tensor
    baseline_mean: Tensor
    positions: tuple[int | None, ...]
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]

    @property
    def layers(self) -> int:
        """The number of the model's layers."""
        return int(self.target_mean.shape[1])

    @property
    def width(self) -> int:
        """d_model."""
        return int(self.target_mean.shape[2])


@dataclass(kw_only=True)
class SearchFolder:
    """The progress of a search; without a path it is kept in memory alone.

    Attributes:
        path: the folder; None for none.
        inputs: what the scores depend on, by name, JSON values.
        metering: what the model says first; None before that is known, or where nobody asks.
        searched: what the method found; None before.
        scores: by the candidate's number, the values of those of its scores that were measured, prompt by prompt.
        similarities: the same of the score that needs no refusal tokens (COSMIC).
        controls: scores of random directions.
        answers: the model's own, judged, by prompt.
        more: by number of further prompts and by candidate, what they add to its scores' values.
        confirmed: by what was asked and by candidate (None is the unedited model), the verdicts on answers.
    """

    path: Path | None
    inputs: Mapping[str, Any]
    metering: Metering | None = None
    searched: Searched | None = None
    scores: dict[int, Values] = field(default_factory=dict)
    similarities: dict[int, Similarity] = field(default_factory=dict)
    controls: list[CandidateScore] = field(default_factory=list)
    answers: dict[Place, JudgedAnswer] = field(default_factory=dict)
    more: dict[int, dict[int, Values]] = field(default_factory=dict)
    confirmed: dict[str, dict[int | None, list[str]]] = field(default_factory=dict)
    _begun: bool = field(default=False, init=False, repr=False)

    @classmethod
    def open(
        cls, path: str | Path, inputs: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
    ) -> "SearchFolder":
        """The folder of a search: a new one, or an earlier one with the same inputs.

        A new folder is made on disk only when there is something to keep.

        Args:
            path: the folder; its parent exists.
            inputs: what the scores depend on.
            resume: go on with what is there; where nothing is, begin.
            overwrite: begin anew whatever is there. With `resume`: only where the inputs are others.

        Raises:
            UsageError: something is there and neither was asked for, it is a search of other inputs (named), or
                it is not ours or cannot be read.
        """
        path = Path(path)
        inputs = json.loads(json.dumps(inputs))
        earlier = found_earlier(path, resume=resume, overwrite=overwrite)
        if earlier is None:
            return cls(path=path, inputs=inputs)
        others = _differences(earlier.get("inputs"), inputs)
        if overwrite and (not resume or others):
            return cls(path=path, inputs=inputs)
        if others:
            raise UsageError(
                f"{printable(str(path))} is of another search, made with other {', '.join(others)}; give what it was "
                "made with, or `overwrite=True`, or another `out`",
                option=("overwrite", "out", *_ARGUMENTS),
            )
        return cls._taken_up(path, inputs, earlier)

    @property
    def none_left(self) -> bool:
        """Whether every prompt was drawn, so that nothing can be measured on more."""
        return self.searched is not None and not any((self.searched.facts.get("undrawn") or {}).values())

    def table(self, layers: int, n_more: int = 0) -> list[CandidateScore]:
        """The scores of all candidates in order; of one that may not be chosen there are none.

        Args:
            layers: how many of the model's, from the first, may be chosen.
            n_more: the number of further prompts whose values count too, for candidates that were measured on them.
        """
        assert self.searched is not None
        rows = []
        more = self.more.get(n_more, {})
        for number, candidate in enumerate(self.searched.candidates):
            if not worth_scoring(candidate, layers):
                rows.append(score_of(candidate, {}))
                continue
            score = score_of(candidate, self.scores.get(number, {}))
            score = with_more(score, more[number]) if number in more else score
            rows.append(with_similarity(score, self.similarities.get(number)))
        return rows

    def note_answers(self, answers: Mapping[Place, JudgedAnswer]) -> None:
        """Keep answers of the model."""
        self.answers |= answers
        if self.path is not None and not self._begun:
            self._write_search()
        for place, answer in answers.items():
            self._append(to_row(place, answer), ANSWERS)

    def note_more(self, n_more: int, number: int, values: Values) -> None:
        """Keep the values of a candidate's scores on further prompts."""
        self.more.setdefault(n_more, {})[number] = values
        self._append({"n_more": n_more, "candidate": number, "values": values}, MORE)

    def note_confirmed(self, key: str, number: int | None, verdicts: list[str]) -> None:
        """Keep the verdicts on answers under a candidate's edit, or on those of the unedited model."""
        self.confirmed.setdefault(key, {})[number] = verdicts
        self._append({"asked": key, "candidate": number, "verdicts": verdicts}, CONFIRMED)

    def discard(self) -> None:
        """Remove what is there, of a search that is refused before anything is found."""
        if self.path is not None and self._begun and self.searched is None:
            for name in reversed(FILES):
                (self.path / name).unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()
            self._begun = False
        self.metering, self.answers = None, {}

    def note_metering(self, metering: Metering) -> None:
        """Keep the refusal tokens and which prompts count."""
        self.metering = metering
        self._write_search()

    def note_searched(self, searched: Searched) -> None:
        """Keep the candidates of the method."""
        self.searched = searched
        self.scores, self.similarities, self.controls, self.more, self.confirmed = {}, {}, [], {}, {}
        self._write_search()
        if self.path is not None:
            # Scores of other candidates are none of these.
            for name in (SCORES, MORE, CONFIRMED):
                (self.path / name).unlink(missing_ok=True)
            save_whole(self.path / CANDIDATES, _packed(searched))

    def note_scores(self, number: int, values: Values) -> None:
        """Keep scores of a candidate beside those that there are."""
        self.scores[number] = {**self.scores.get(number, {}), **values}
        self._append({"candidate": number, "values": values})

    def note_similarity(self, number: int, value: Similarity) -> None:
        """Keep the COSMIC score of a candidate."""
        self.similarities[number] = value
        self._append({"candidate": number, **asdict(value)})

    def note_control(self, score: CandidateScore) -> None:
        """Keep the scores of a random direction."""
        self.controls.append(score)
        self._append({"control": True, **asdict(score)})

    @classmethod
    def _taken_up(cls, path: Path, inputs: Mapping[str, Any], earlier: Mapping[str, Any]) -> "SearchFolder":
        taken = cls(path=path, inputs=inputs)
        taken._begun = True
        try:
            said = earlier.get("metering")
            if said is not None:
                keep = tuple((tuple(train), tuple(held)) for train, held in said["keep"])
                means = {name: _number(value) for name, value in said["means"].items()}
                more = said.get("more")
                taken.metering = Metering(
                    tokens=tuple(said["tokens"]),
                    keep=keep,
                    means=means,
                    opens=tuple(said.get("opens", ())),
                    heard=said.get("heard", {}),
                    warnings=tuple(said.get("warnings", ())),
                    more=None if more is None else tuple(map(tuple, more)),
                )
            taken.answers = dict(from_row(row) for row in taken._rows(ANSWERS))
            if (path / CANDIDATES).exists():
                taken.searched = _unpacked(path / CANDIDATES)
                taken._read_scores()
        except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"{printable(str(path))} cannot be read ({error}); `overwrite=True` begins anew", option="overwrite"
            ) from error
        return taken

    def _read_scores(self) -> None:
        for row in self._rows(SCORES):
            number = row.pop("candidate", None)
            if row.pop("control", False):
                self.controls.append(CandidateScore(**{**row, "values": _tuples(row["values"])}))
            elif set(row) == {"ablated", "added"}:
                self.similarities[number] = Similarity(**row)
            else:
                # Means of earlier versions beside the values say nothing more.
                self.scores[number] = {**self.scores.get(number, {}), **_tuples(row["values"])}
        for row in self._rows(MORE):
            self.more.setdefault(row["n_more"], {})[row["candidate"]] = _tuples(row["values"])
        for row in self._rows(CONFIRMED):
            self.confirmed.setdefault(row["asked"], {})[row["candidate"]] = row["verdicts"]

    def _rows(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of a file; one that was being written when the power went is taken off."""
        assert self.path is not None
        file = self.path / name
        if not file.exists():
            return []
        text = read_whole(file).decode("utf-8", "replace")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            save_whole(file, whole)
        # Not splitlines(): answers may have characters such as U+2028 in them.
        return [{key: _number(value) for key, value in parse_json(line).items()} for line in whole.split("\n") if line]

    def _write_search(self) -> None:
        if self.path is None:
            return
        if not self._begun:
            self._begin(self.path)
        said = None if self.metering is None else asdict(self.metering)
        if said is not None:
            # Of no prompts that count there is no mean.
            said["means"] = {name: _named(value) for name, value in said["means"].items()}
        content = {"inputs": self.inputs, "metering": said}
        save_whole(self.path / SEARCH, f"{json.dumps(content, indent=1, allow_nan=False)}\n")

    def _begin(self, path: Path) -> None:
        """Create the folder and clear an earlier search's files, once there is something to keep."""
        try:
            path.mkdir(exist_ok=True)
            # What names the folder as a search's goes last: without it nobody could begin anew in what is left.
            for file in [*_unfinished(path), *(path / name for name in reversed(FILES))]:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{printable(str(path))} cannot be made: {error.strerror}") from error
        self._begun = True

    def _append(self, row: Mapping[str, Any], name: str = SCORES) -> None:
        if self.path is None:
            return
        text = json.dumps({key: _named(value) for key, value in row.items()}, allow_nan=False)
        try:
            append_line(self.path / name, text)
        except OSError as error:
            raise UsageError(f"{printable(str(self.path / name))} cannot be written: {error.strerror}") from error


def found_earlier(path: Path, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """The content of an earlier search's `search.json`; None if there is none.

    Args:
        resume, overwrite: as in `SearchFolder.open`.

    Raises:
        UsageError: something is there and neither was asked for, or it is not ours or cannot be read.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UsageError(f"{printable(str(path))} is there and is no folder, so what is found cannot be kept in it")
    if not path.exists() or len(_unfinished(path)) == len(list(path.iterdir())):
        # Nothing is in it, or what a process that was killed had begun to write as the first of it.
        return None
    try:
        found = read_json(read_whole(path / SEARCH), SEARCH)
    except UsageError as error:
        raise UsageError(
            f"{printable(str(path))} is no folder of a search ({error}); choose another `out`", option="out"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("inputs"), dict):
        raise UsageError(f"{printable(str(path))} is no folder of a search; choose another `out`", option="out")
    if not (resume or overwrite):
        raise UsageError(
            f"{printable(str(path))} holds what an earlier search found; `resume=True` goes on with it, and chooses "
            "again where it is complete; `overwrite=True` begins anew",
            option=("resume", "overwrite"),
        )
    return found


def _unfinished(path: Path) -> list[Path]:
    return [each for each in path.iterdir() if is_unfinished(each)]


def _differences(earlier: Any, inputs: Mapping[str, Any]) -> list[str]:
    """What differs, in words; arguments as such, and both values where they are short."""
    found = []
    for name in sorted({*earlier, *inputs}):
        there, here = earlier.get(name), inputs.get(name)
        if there == here:
            continue
        short = all(value is None or isinstance(value, bool | int | float | str) for value in (there, here))
        values = f" ({there} there, {here} here)" if short and name != "model" else ""
        found.append((f"`{name}`" if name in _ARGUMENTS else name) + values)
    return found


def _packed(searched: Searched) -> bytes:
    tensors = {"target_mean": searched.target_mean, "baseline_mean": searched.baseline_mean}
    rows = []
    for number, candidate in enumerate(searched.candidates):
        tensors[f"{number}.rows"] = candidate.rows
        if candidate.vector is not None:
            tensors[f"{number}.vector"] = candidate.vector
        tensors |= {f"{number}.tensor.{name}": tensor for name, tensor in candidate.tensors.items()}
        apart = searched.separations[number]
        rows.append(
            {
                "position": candidate.position,
                "layer": candidate.layer,
                "facts": dict(candidate.facts),
                "tensors": list(candidate.tensors),
                "vector": candidate.vector is not None,
                "separation": None if apart is None else apart.to_dict(),
            }
        )
    content = {
        "candidates": rows,
        "positions": list(searched.positions),
        "facts": dict(searched.facts),
        "warnings": list(searched.warnings),
    }
    # Copies: a vector may be a row of `rows`, and a file holds no two names for the same numbers.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return to_bytes(plain, metadata={_KEY: json.dumps(content)})


def _unpacked(path: Path) -> Searched:
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()[_KEY])
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    candidates, separations = [], []
    for number, row in enumerate(content["candidates"]):
        candidates.append(
            Candidate(
                position=row["position"],
                layer=row["layer"],
                rows=tensors[f"{number}.rows"],
                vector=tensors[f"{number}.vector"] if row["vector"] else None,
                tensors={name: tensors[f"{number}.tensor.{name}"] for name in row["tensors"]},
                facts=row["facts"],
            )
        )
        separations.append(None if row["separation"] is None else Separation(**row["separation"]))
    return Searched(
        candidates=candidates,
        separations=separations,
        target_mean=tensors["target_mean"],
        baseline_mean=tensors["baseline_mean"],
        positions=tuple(content["positions"]),
        facts=content["facts"],
        warnings=tuple(content["warnings"]),
    )


def _named(value: Any) -> Any:
    """The value, with NaN and infinities as text: JSON has no numbers for them."""
    if isinstance(value, Mapping):
        return {key: _named(some) for key, some in value.items()}
    if isinstance(value, list | tuple):
        return [_named(some) for some in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value


def _tuples(values: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(map(_number, some)) for name, some in values.items()}
