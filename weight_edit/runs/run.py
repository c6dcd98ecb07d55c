"""The run of a recipe: measure the base, find, bake, verify, measure the edit, finish."""

import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.baking.bake import bake
from weight_edit.baking.card.card_and_manifest import stamp
from weight_edit.checkpoint.rewrite.output import staged
from weight_edit.checkpoint.rewrite.ownership import FAILED, MODEL, UNVERIFIED, below, check_files
from weight_edit.checkpoint.source.fingerprint import fingerprint
from weight_edit.directions.directions import load_directions
from weight_edit.directions.file import folder_of
from weight_edit.directions.find_folder import FILES as FIND_FILES
from weight_edit.edits.packed_directions import packed_directions
from weight_edit.errors import UsageError, VerificationError, WeightEditError, first_line, plain
from weight_edit.evaluation.answers import load_answers
from weight_edit.evaluation.effect import effect_document
from weight_edit.evaluation.evaluate import evaluate_in_turn
from weight_edit.evaluation.four_classes import four_classes_document
from weight_edit.evaluation.loaders import lent
from weight_edit.evaluation.paired_answers import continuation_document, paired_document
from weight_edit.evaluation.probabilities import BaseLogprobs
from weight_edit.evaluation.questions import SETS, Questions, questions_of
from weight_edit.evaluation.target import ModelTarget
from weight_edit.hub.calls import dataset_token
from weight_edit.hub.source import check_named, resolve
from weight_edit.plan.plan import check_kernel, check_layers, check_reflection, parse_layers
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.recipe.recipe import MAIN, Recipe, Study, load_recipe
from weight_edit.redaction import redacted
from weight_edit.runs import reporting
from weight_edit.runs.bounds import beyond_bounds
from weight_edit.runs.directions import Search, directions_file, slug, step_name, write_given
from weight_edit.runs.folder import RunFolder
from weight_edit.runs.geometry import GEOMETRY, Geometry
from weight_edit.runs.given_directions import given_directions
from weight_edit.runs.publishing import check_push, not_pushed, push_model
from weight_edit.runs.recipe_checks import check_edit
from weight_edit.runs.search import FOLDER as SEARCH
from weight_edit.runs.search import (
    PICKED,
    files_while_searching,
    picked_edit,
    recipe_sections,
    run_search,
    search_request,
)
from weight_edit.runtime.loading import Model, chat_format, load, read_config
from weight_edit.search.summary import SearchSummary
from weight_edit.studies.lab import Lab, edit_step
from weight_edit.studies.registry import study_named
from weight_edit.studies.requirements import directions_asked, files_asked, steps_asked
from weight_edit.tables.shown import Shown
from weight_edit.utils.extras import need
from weight_edit.utils.progress import announce
from weight_edit.utils.progress_events import emit_steps
from weight_edit.verification.verify import verify

NOT_MEASURED = "the recipe names no prompts to evaluate, so nothing is answered and no behaviour is measured"


@dataclass(frozen=True)
class RunResult(Shown):
    """A finished run.

    Attributes:
        path: the run's folder.
        model: the edited model in it; None where the recipe has no edit.
        summary: what `run.json` says under "summary": baseline, direction, studies, edited, verification,
            effect, geometry, seconds, push.
        report: the page of the run; None where none was made.
    """

    path: Path
    model: Path | None
    summary: dict[str, Any]
    report: Path | None = None

    def __repr__(self) -> str:
        steps = ", ".join(key for key, value in self.summary.items() if value)
        unmeasured = ", no answers measured" if self.model is not None and not self.summary.get("edited") else ""
        return f"RunResult({str(self.path)!r}, model={self.model and str(self.model)!r}, summary: {steps}{unmeasured})"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        paths = {"path": self.path, "model": self.model, "report": self.report}
        return {**self.summary, **{name: path and str(path) for name, path in paths.items()}}


def run(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    keep_failed: bool = False,
    report: bool = True,
    push: bool = False,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> RunResult:
    """Run a recipe in a folder.

    Args:
        recipe: see `weight_edit.recipe.recipe`; or what `load_recipe` takes, such as "organism".
        out: the run's folder: recipe, log, directions, answers, `run.json`, and the edited model.
        model: in place of the recipe's, where that is named and not loaded yet; see `load_recipe`.
        resume: take up an earlier run in `out`; steps whose inputs are unchanged are not done again.
        overwrite: replace an earlier run, when this one is done; until then it is made beside it, in `out` with `.new`
            behind it.
        keep_failed: keep a model that failed its checks, as `model.failed` and marked as such.
        report: make the page of the run at its end, where the extra `report` is installed.
        push: push the finished model where the recipe says; without it nothing is sent, whatever a recipe says.
        token: Hub access token.
        trust_remote_code: allow the model's own code.

    Raises:
        UsageError, UnsupportedError: before anything is written, where that can be told; or the push failed, and the
            run is done.
        VerificationError: a check failed or the damage is beyond the recipe's bounds; there is no finished model. Or
            what was pushed is not what the Hub has, of a run that is done.
    """
    began = time.monotonic()
    if isinstance(recipe, Recipe) and model is not None:
        raise UsageError("the recipe is loaded already; give `model` to `load_recipe`", option="model")
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, model=model)
    if push:
        check_push(recipe, token)
    with dataset_token(token):
        job = _Run(recipe, token, trust_remote_code)
    folder = RunFolder.open(out, job.kept_recipe, source=job.source.path, resume=resume, overwrite=overwrite)
    with closing(folder):
        emit_steps([*job.steps, *(["report"] if report else [])])
        summary = _executed(job, folder, keep_failed, token)
        summary["seconds"] = round(time.monotonic() - began, 1)
        if recipe.push is not None:
            summary["push"] = not_pushed(recipe.push.destination)
        folder.state.update(status="done", summary=summary)
        folder.save()
        folder.log(f"done in {summary['seconds']} s")
        folder.take_place()
        page = reporting.report_of_run(folder) if report else None
        if push:
            # Behind all else: a run whose push fails is done all the same.
            try:
                summary["push"] = push_model(recipe, folder.path / MODEL, token, trust_remote_code)
            except WeightEditError as error:
                # What was committed all the same, the message says.
                summary["push"] = {**summary["push"], "failed": str(error)}
                folder.log(f"push failed: {error}")
                folder.save()
                raise
            folder.log(f"pushed: {summary['push']['url']}")
            folder.save()
    return RunResult(folder.path, None if recipe.edit is None else folder.path / MODEL, summary, page)


def _executed(job: "_Run", folder: RunFolder, keep_failed: bool, token: str | None) -> dict[str, Any]:
    """The summary of all steps; what ends them early is noted in the folder."""
    try:
        with dataset_token(token):
            return job.execute(folder, keep_failed)
    except (KeyboardInterrupt, SystemExit):
        _note_end(folder, "interrupted", "; steps that are done are kept, and resume goes on with them")
        announce(f"interrupted{folder.whereabouts}")
        raise
    except WeightEditError as error:
        _note_end(folder, f"failed: {error}")
        # The same error, whose details (a table of candidates) go with it.
        error.args = (plain(f"{error}{folder.whereabouts}"),)
        error.options = (*error.options, "resume")
        raise
    except Exception as error:
        # A reader of a pipe that has gone, a disk, a mistake of ours: whoever comes later is told that it ended.
        _note_end(folder, redacted(f"failed: {type(error).__name__}: {first_line(error)}"))
        raise


def _note_end(folder: RunFolder, status: str, more: str = "") -> None:
    """Note in a run's folder how the run ended; a disk that takes no note does not hide why."""
    folder.state["status"] = status
    with suppress(OSError):
        folder.save()
        folder.log(f"{status}{more}")


class _BaseModel:
    """The unedited model: loaded when first needed, dropped before the edited one is loaded."""

    def __init__(self, read: Callable[[], Model]) -> None:
        self._read = read
        self._model: Model | None = None

    def load(self) -> Model:
        """The model, read at most once until it is released."""
        if self._model is None:
            self._model = self._read()
        return self._model

    def release(self) -> None:
        """Drop the model, which frees its memory if nothing else holds it."""
        self._model = None


class _Run:
    """A recipe with the state that its steps share: prompts, searches, studies, and the base."""

    def __init__(self, recipe: Recipe, token: str | None, trust_remote_code: bool) -> None:
        self.recipe = recipe
        # A typo in the name is told before prompt sets are downloaded.
        check_named(recipe.model, revision=recipe.revision, token=token)
        limit = recipe.evaluate.limit
        self.sets = {name: _prompts(getattr(recipe.evaluate, name), limit) for name in SETS}
        self.text = _prompts(recipe.evaluate.text, limit)
        self.searches = {name: Search.of(section, recipe.seed) for name, section in recipe.searches.items()}
        if recipe.studies:
            # Before hours of work, not at the first figure.
            need("matplotlib", f"study {recipe.studies[0].kind}")
        self.given = given_directions(recipe)
        if recipe.search is not None:
            # Before hours of work, not at the first candidate.
            need("optuna", "a recipe with a search")
        self.search = None if recipe.search is None else search_request(recipe, self.searches[MAIN].request)
        known = {**self.searches, **self.given}
        self.studied = [study_named(each.kind).settings(each.options) for each in recipe.studies]
        for each, settings in zip(recipe.studies, self.studied, strict=True):
            for name in directions_asked(settings):
                if name not in known:
                    there_are = ", ".join(known) or "none"
                    raise UsageError(
                        f"study {each.kind}: no directions are called '{name}'; the recipe finds {there_are}"
                    )
        self.verify_prompts = load_prompts(recipe.verify.prompts)
        self.token = token
        self.trust_remote_code = trust_remote_code
        self.source = resolve(recipe.model, revision=recipe.revision, token=token)
        config = read_config(self.source, trust_remote_code=trust_remote_code)
        # A missing template is said before the weights are read.
        chat_format(
            self.source,
            system=recipe.system,
            template=recipe.template,
            template_args=recipe.template_args,
            thinking=recipe.thinking,
            trust_remote_code=trust_remote_code,
        )
        anatomy = anatomy_of(config, trust_remote_code=trust_remote_code)
        for rows in self.given.values():
            rows.check_width(anatomy.d_model)
        tried = [step for settings in self.studied for step in steps_asked(settings)]
        for step in [*(recipe.edit.steps if recipe.edit else []), *tried]:
            check_layers(parse_layers(step.layers), anatomy)
            check_layers(() if step.at == "found" else step.at, anatomy)
            check_kernel(step.kernel, anatomy)
        check_edit(recipe, self.given, anatomy.d_model)
        self.base = _BaseModel(self._read_base)
        self._base_logprobs: BaseLogprobs | None = None
        self._looked_at = self._directions_looked_at()
        self._geometry: Geometry | None = None
        if self._looked_at is not None:
            note = "" if self.search is None else "the search set out from them and may have baked others"
            self._geometry = Geometry(self._looked_at, self.sets, self._format, note)

    def _directions_looked_at(self) -> str | None:
        """The name of the found directions whose geometry is recorded; None where the edit has none that were found."""
        if self.recipe.edit is None or not any(self.sets.values()):
            return None
        named = [MAIN] if self.search is not None else [step.directions or MAIN for step in self.recipe.edit.steps]
        return next((name for name in named if name in self.searches), None)

    def _read_base(self) -> Model:
        """The base model, loaded and checked for the edit."""
        model = self._load(self.source.path)
        model.source = self.source
        edit = self.recipe.edit
        if edit is not None and any(step.kind == "reflect" and step.at for step in edit.steps):
            # Only the weights tell whether it is tied; minutes of searching come behind this.
            check_reflection(model.anatomy, edit.embeddings)
        return model

    def base_logprobs(self) -> BaseLogprobs | None:
        """What the base gives for the edited model to be compared with; None where nothing is compared."""
        compared = self.sets["answered"] is not None or self.text is not None
        if compared and self._base_logprobs is None:
            self._base_logprobs = self._target(self.base.load()).base_logprobs(self._questions)
        return self._base_logprobs

    def _target(self, model: Model) -> ModelTarget:
        return ModelTarget(model, self._format(model))

    @cached_property
    def _questions(self) -> Questions:
        asked = self.recipe.evaluate
        return questions_of(
            self.sets,
            text=self.text,
            max_new_tokens=asked.max_new_tokens,
            lengths=asked.lengths,
            judges=asked.specs,
            kl_tokens=asked.kl_tokens,
        )

    def execute(self, folder: RunFolder, keep_failed: bool) -> dict[str, Any]:
        """Run every step that is not done already; returns the run's summary."""
        recipe = self.recipe
        baseline = self._measure_base(folder)
        given = self._keep_given(folder)
        found = self._find_all(folder)
        digests = {name: each["sha256"] for name, each in {**given, **found}.items()}
        summary: dict[str, Any] = {"baseline": baseline, "direction": found.get(MAIN)}
        if recipe.finds:
            summary["directions"] = found
        if given:
            summary["given"] = given
        if recipe.studies:
            inputs = [self._model_inputs, self._measured_inputs, digests, recipe.seed]
            summary["studies"] = self._study_all(folder, inputs)
        if recipe.edit is None:
            folder.state["finished"] = None
            return summary
        if self.search is None:
            used = {name: digests[name] for name in sorted({step.directions or MAIN for step in recipe.edit.steps})}
        else:
            summary["search"] = self._search_edit(folder)
            used = {PICKED: fingerprint(folder.path / PICKED)}
        edit = [self._model_inputs, used, recipe.edit.model_dump(mode="json")]
        pictured = [edit, self._measured_inputs, digests.get(self._looked_at or "")]
        finished = [edit, self._measured_inputs, self._verified_inputs, recipe.bounds.model_dump(mode="json")]
        model_folder = folder.path / MODEL
        if model_folder.exists() and folder.state.get("finished") == [*finished, fingerprint(model_folder)]:
            folder.log("the edited model is finished already")
            steps = folder.state["steps"]
            checked, edited = steps["verify"]["result"], steps["evaluate"]["result"] if self._measures else {}
            summary |= {"edited": edited, "verification": checked, "effect": effect_document(edited, checked)}
            return summary | self._record_geometry(folder, pictured)
        folder.state["finished"] = None
        unverified = self._bake_unverified(folder, edit, pictured)
        checked, edited, problems = self._check(folder, unverified, edit, baseline)
        summary |= {"edited": edited, "verification": checked, "effect": effect_document(edited, checked)}
        self._settle(folder, unverified, summary, problems, keep_failed)
        folder.state["finished"] = [*finished, fingerprint(model_folder)]
        folder.save()
        return summary | self._record_geometry(folder, pictured)

    @property
    def steps(self) -> list[str]:
        """The names of all steps, in their order."""
        recipe = self.recipe
        return [
            *(["baseline"] if self._measures else []),
            *(step_name("directions", name) for name in self.given),
            *(step_name("find", name) for name in self.searches),
            *(f"study {number + 1}" for number in range(len(recipe.studies))),
            *([] if self.search is None else ["search"]),
            *([] if recipe.edit is None else ["bake", "verify"]),
            *(["evaluate"] if self._measures and recipe.edit is not None else []),
            *([] if self._geometry is None else ["geometry"]),
        ]

    @cached_property
    def _model_inputs(self) -> dict[str, Any]:
        """The base and how it is asked, on which every step depends."""
        recipe = self.recipe
        return {
            "files": fingerprint(self.source.path),
            "dtype": recipe.dtype,
            "system": recipe.system,
            "template": recipe.template,
            **({"template_args": recipe.template_args} if recipe.template_args else {}),
            **({"thinking": recipe.thinking} if recipe.thinking else {}),
        }

    @cached_property
    def _measured_inputs(self) -> list[Any]:
        """The prompts and settings of both evaluations."""
        return [_digests(*self.sets.values(), self.text), self.recipe.evaluate.model_dump(mode="json")]

    @cached_property
    def _verified_inputs(self) -> list[Any]:
        """The prompts and settings of the verification."""
        return [self.verify_prompts.content_sha256, self.recipe.verify.model_dump(mode="json")]

    @cached_property
    def kept_recipe(self) -> Recipe:
        """The recipe as the run's folder holds it: files of directions are named as they are called there."""
        recipe = self.recipe
        files = {name: directions_file(name) for name, value in recipe.directions.items() if isinstance(value, str)}
        return recipe.model_copy(update={"directions": {**recipe.directions, **files}}) if files else recipe

    def _keep_given(self, folder: RunFolder) -> dict[str, dict[str, Any]]:
        """The record of all directions that the recipe brings along, by name; each is written as a file of the run."""
        return {
            name: folder.step(
                step_name("directions", name),
                packed_directions(rows),
                (directions_file(name),),
                partial(write_given, rows, folder.path / directions_file(name)),
            )
            for name, rows in self.given.items()
        }

    def _find_all(self, folder: RunFolder) -> dict[str, dict[str, Any]]:
        """The record of every search, by the name of its directions."""
        return {
            name: folder.step(
                step_name("find", name),
                [self._model_inputs, search.key, self.recipe.seed],
                (directions_file(name),),
                partial(self._find, search, folder.path / directions_file(name)),
                [str(folder_of(directions_file(name)) / each) for each in FIND_FILES],
            )
            for name, search in self.searches.items()
        }

    def _record_geometry(self, folder: RunFolder, pictured: list[Any]) -> dict[str, Any]:
        """The geometry's entry of the summary; empty where there is none.

        Args:
            pictured: the inputs of the geometry.
        """
        geometry, name = self._geometry, self._looked_at
        if geometry is None or name is None:
            return {}

        def edited() -> Model:
            self.base.release()
            return self._load(folder.path / MODEL)

        def work() -> dict[str, Any]:
            return geometry.write(folder.path / GEOMETRY, folder.path / directions_file(name), self.base.load, edited)

        return {"geometry": folder.step("geometry", pictured, (GEOMETRY,), work)}

    def _bake_unverified(self, folder: RunFolder, edit: list[Any], pictured: list[Any]) -> Path:
        """The edited model, before it is judged; the base is released behind it.

        Args:
            edit: the inputs of the edit.
            pictured: those of its geometry.
        """
        # They go when the new model is judged, not before: hours of work lie between.
        folder.check_own(MODEL, FAILED)
        unverified = folder.path / UNVERIFIED
        folder.step("bake", edit, (UNVERIFIED,), lambda: self._bake(folder, unverified))
        # The last use of the base: it makes room for the models that are verified and measured.
        self.base_logprobs()
        if self._geometry is not None and not folder.is_done("geometry", pictured, (GEOMETRY,)):
            self._geometry.read_base(self.base.load(), folder.path / directions_file(str(self._looked_at)))
        self.base.release()
        return unverified

    def _check(
        self, folder: RunFolder, unverified: Path, edit: list[Any], baseline: dict[str, Any]
    ) -> tuple[dict[str, Any] | None, dict[str, Any], list[str]]:
        """The verification and the evaluation of the edited model, and every reason why it must not be used.

        Args:
            unverified: the edited model.
            edit: the inputs of the edit.
            baseline: what was measured of the base.
        """
        checked, edited = None, {}
        try:
            checked = folder.step("verify", [edit, self._verified_inputs], (), lambda: self._verify(unverified))
            problems = list(checked["problems"])
            if not problems:
                if self._measures:
                    edited = folder.step(
                        "evaluate",
                        [edit, self._measured_inputs],
                        ("answers/edited.jsonl",),
                        lambda: self._evaluate_edited(unverified, folder.path / "answers"),
                    )
                problems = beyond_bounds(self.recipe.bounds, baseline, edited)
        except VerificationError as error:
            # A loss that is not finite, say: what could not be measured has not passed.
            problems = [str(error)]
        return checked, edited, problems

    def _settle(
        self,
        folder: RunFolder,
        unverified: Path,
        summary: dict[str, Any],
        problems: list[str],
        keep_failed: bool,
    ) -> None:
        """Give a model that passed its final name; else keep or remove it as failed, and raise."""
        if not problems:
            stamp(unverified, summary)
            folder.rename(UNVERIFIED, MODEL)
            folder.remove(FAILED)
            return
        folder.forget("bake", "verify", "evaluate")
        if keep_failed:
            stamp(unverified, summary, failed=tuple(problems))
            folder.rename(UNVERIFIED, FAILED)
            folder.remove(MODEL)
        else:
            folder.remove(UNVERIFIED, MODEL, FAILED)
        kept = f"; the model is kept as {FAILED}" if keep_failed else "; no model was kept (see `keep_failed`)"
        more = f" (and {len(problems) - 1} more in {folder.path}/log.txt)" if len(problems) > 1 else ""
        for problem in problems:
            folder.log(f"problem: {problem}")
        raise VerificationError(f"{problems[0]}{more}{kept}", option="keep_failed")

    def _find(self, search: Search, out: Path) -> dict[str, Any]:
        base = self.base.load()
        return search.run(base, self._format(base), out)

    def _search_edit(self, folder: RunFolder) -> dict[str, Any]:
        """The record of the search for the best edit, which is kept as a recipe."""
        assert self.search is not None
        inputs = [self._model_inputs, self.searches[MAIN].key, self.search.key, self.search.pick, self.recipe.seed]
        sections = recipe_sections(self.recipe)
        return folder.step("search", [*inputs, sections], (PICKED,), partial(self._search, folder), self._searching)

    @property
    def _searching(self) -> list[str]:
        """The files that a search writes as it goes on, but for its points, which it records itself."""
        assert self.search is not None
        return files_while_searching(self.search, folder_of(directions_file(MAIN)))

    def _search(self, folder: RunFolder) -> SearchSummary:
        assert self.search is not None
        base = self.base.load()
        directions = folder.path / directions_file(MAIN)
        try:
            return run_search(
                self.recipe,
                self.search,
                base,
                self._format(base),
                folder=folder.path,
                directions=directions,
                found=folder_of(directions),
            )
        finally:
            # As for what was found: it is the run's own however the search ended.
            for kept in (folder.path / SEARCH, folder_of(directions)):
                if kept.is_dir():
                    folder.record(kept.name)
            folder.save()

    def _study_all(self, folder: RunFolder, inputs: list[Any]) -> list[dict[str, Any]]:
        """Run every study of the recipe, each in its own folder."""
        done = []
        for number, each in enumerate(self.recipe.studies):
            name = each.title or each.kind
            place = f"studies/{number + 1}-{slug(name)}"
            result = folder.step(
                f"study {number + 1}",
                [*inputs, each.model_dump(mode="json"), files_asked(self.studied[number]), self._embeddings],
                (place,),
                partial(self._study, folder, each, place),
            )
            done.append({"kind": each.kind, "title": name, "folder": place, **result})
        return done

    @property
    def _embeddings(self) -> str:
        """What studies do to a tied unembedding: what the recipe's edit does."""
        return "both" if self.recipe.edit is None else self.recipe.edit.embeddings

    def _study(self, folder: RunFolder, section: Study, place: str) -> dict[str, Any]:
        names = [*self.searches, *self.given]
        found = {name: load_directions(folder.path / directions_file(name)) for name in names}
        earlier = below(place, folder.records)
        base = self.base.load()
        # Whole or not at all: what an attempt that was interrupted left there is none of this one's.
        with staged(folder.path / place, overwrite=True, own=lambda old: check_files(old, earlier)) as made:
            lab = Lab(
                model=base,
                format=self._format(base),
                found=found,
                sets=self.sets,
                folder=made,
                seed=self.recipe.seed,
                max_new_tokens=self.recipe.evaluate.max_new_tokens,
                kl_tokens=self.recipe.evaluate.kl_tokens,
                text=self.text,
                judges=self.recipe.evaluate.specs,
                embeddings=self._embeddings,
                log=folder.log,
            )
            return study_named(section.kind)(lab, section.options)

    def _bake(self, folder: RunFolder, unverified: Path) -> dict[str, Any]:
        # What was found out about an earlier bake says nothing about this one.
        folder.forget("verify", "evaluate")
        section = self.recipe.edit
        assert section is not None
        if self.search is not None:
            steps, section = picked_edit(folder.path)
        else:
            steps = [
                edit_step(step, load_directions(folder.path / directions_file(step.directions or MAIN)).rows)
                for step in section.steps
            ]
        result = bake(
            self.recipe.model,
            steps,
            unverified,
            **section.how,
            revision=self.recipe.revision,
            token=self.token,
            overwrite=True,
            resume=True,
            trust_remote_code=self.trust_remote_code,
        )
        return {**result.to_dict(), "path": MODEL}

    def _verify(self, unverified: Path) -> dict[str, Any]:
        section = self.recipe.verify
        return verify(
            self.recipe.model,
            unverified,
            prompts=self.verify_prompts,
            limit=section.limit,
            system=self.recipe.system,
            template=self.recipe.template,
            template_args=self.recipe.template_args,
            revision=self.recipe.revision,
            token=self.token,
            device=self.recipe.device,
            offload=self.recipe.offload,
            trust_remote_code=self.trust_remote_code,
        ).to_dict()

    def _evaluate_edited(self, unverified: Path, answers: Path) -> dict[str, Any]:
        """What is measured of the edited model, with its differences from the base's answers, pair by pair."""
        model = self._load(unverified)
        measured = self._evaluate(self._target(model), answers / "edited.jsonl", self.base_logprobs())
        if self._geometry is not None:
            self._geometry.read_edited(model)
        base, edited = (load_answers(answers / f"{name}.jsonl") for name in ("baseline", "edited"))
        along = measured.get("continuation")
        return {
            **measured,
            "differences": paired_document(base, edited),
            **four_classes_document(base, edited),
            **({} if along is None else continuation_document(base, along["per_prompt"])),
        }

    @property
    def _measures(self) -> bool:
        """Whether the recipe names anything that the base and the edited model are measured on."""
        return any(self.sets.values()) or self.text is not None

    def _measure_base(self, folder: RunFolder) -> dict[str, Any]:
        """What is measured of the base; empty where the recipe names nothing to measure, which is said."""
        if not self._measures:
            folder.log(NOT_MEASURED)
            announce(NOT_MEASURED)
            return {}
        return folder.step(
            "baseline",
            [self._model_inputs, self._measured_inputs],
            ("answers/baseline.jsonl",),
            lambda: self._evaluate_base(folder.path / "answers/baseline.jsonl"),
        )

    def _evaluate_base(self, answers: Path) -> dict[str, Any]:
        target = self._target(self.base.load())
        measured = self._evaluate(target, answers, None)
        if self.sets["answered"] is not None or self.text is not None:
            # Its answers are at hand now; later it would have to give them again.
            self._base_logprobs = target.base_logprobs(self._questions)
        return measured

    def _evaluate(self, target: ModelTarget, answers: Path, base: BaseLogprobs | None) -> dict[str, Any]:
        found = evaluate_in_turn(None, lent(target), self._questions, base_logprobs=base, answers_path=answers)
        return found.to_dict()

    def _load(self, path: Path) -> Model:
        recipe = self.recipe
        return load(
            path,
            dtype=recipe.dtype,
            device=recipe.device,
            trust_remote_code=self.trust_remote_code,
            offload=recipe.offload,
        )

    def _format(self, model: Model) -> ChatFormat:
        recipe = self.recipe
        return ChatFormat(
            model.tokenizer,
            system=recipe.system,
            template=recipe.template,
            template_args=recipe.template_args,
            thinking=recipe.thinking,
        )


def _prompts(spec: str | None, limit: int | None = None) -> PromptSet | None:
    if spec is None:
        return None
    return load_prompts(spec).at_most(limit)


def _digests(*sets: PromptSet | None) -> list[str | None]:
    """The content digests of prompt sets with answers: a file may change under its name."""
    return [None if prompts is None else prompts.content_sha256 for prompts in sets]
