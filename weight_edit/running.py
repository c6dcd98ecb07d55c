"""Carry out a recipe: measure the base, find, bake, verify, measure the edit, and only then show a model."""

import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from weight_edit.anatomy import anatomy_of
from weight_edit.baking import bake
from weight_edit.bounds import beyond_bounds
from weight_edit.checkpoint.manifest import sha256
from weight_edit.directions.artifact import load_directions
from weight_edit.directions.find import find_directions
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import VerificationError, WeightEditError
from weight_edit.evaluation.evaluate import SETS, evaluate, first_token_logprobs
from weight_edit.plan import check_layers, parse_layers
from weight_edit.prompts import ChatFormat, PromptSet, load_prompts
from weight_edit.publish.finishing import stamp
from weight_edit.recipe import Recipe
from weight_edit.runfolder import RunFolder, fingerprint
from weight_edit.runtime import Model, load, resolve
from weight_edit.runtime.loading import read_config
from weight_edit.verification.verify import verify

DIRECTIONS = "directions.safetensors"
MODEL = "model"
UNVERIFIED = "model.unverified"
FAILED = "model.failed"


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: the run's folder.
        model: the edited model in it.
        summary: what `run.json` says under "summary": baseline, direction, edited, verification, seconds.
    """

    path: Path
    model: Path
    summary: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**self.summary, "path": str(self.path), "model": str(self.model)}


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    keep_failed: bool = False,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> RunResult:
    """Carry out a recipe in a folder.

    Args:
        recipe: see `weight_edit.recipe`.
        out: the run's folder: recipe, log, directions, answers, `run.json`, and the edited model.
        resume: take up an earlier run in `out`; steps whose inputs are unchanged are not done again.
        overwrite: replace an earlier run.
        keep_failed: keep a model that failed its checks, as `model.failed` and marked as such.
        token: Hub access token.
        trust_remote_code: allow the model's own code.

    Raises:
        UsageError, UnsupportedError: before anything is written, where that can be told.
        VerificationError: a check failed or the damage is beyond the recipe's bounds; there is no finished model.
    """
    began = time.monotonic()
    job = _Job(recipe, token, trust_remote_code)
    folder = RunFolder.open(out, recipe, source=job.source.path, resume=resume, overwrite=overwrite)
    try:
        summary = job.carry_out(folder, keep_failed)
    except KeyboardInterrupt:
        folder.log("interrupted; steps that are done are kept for --resume")
        raise
    except WeightEditError as error:
        folder.state["status"] = f"failed: {error}"
        folder.save()
        folder.log(f"failed: {error}")
        raise
    summary["seconds"] = round(time.monotonic() - began, 1)
    folder.state.update(status="done", summary=summary)
    folder.save()
    folder.log(f"done in {summary['seconds']} s")
    return RunResult(folder.path, folder.path / MODEL, summary)


class _Job:
    """What the steps share; the base model is loaded when a step needs it, and dropped before the edited one is."""

    def __init__(self, recipe: Recipe, token: str | None, trust_remote_code: bool) -> None:
        self.recipe = recipe
        limit = recipe.evaluate.limit
        self.sets = {name: _prompts(getattr(recipe.evaluate, name), limit) for name in SETS}
        self.target, self.baseline = load_prompts(recipe.find.target), load_prompts(recipe.find.baseline)
        self.validation = [_prompts(recipe.find.validation_target), _prompts(recipe.find.validation_baseline)]
        self.verify_prompts = load_prompts(recipe.verify.prompts)
        self.token = token
        self.trust_remote_code = trust_remote_code
        self.source = resolve(recipe.model, revision=recipe.revision, token=token)
        config = read_config(self.source, trust_remote_code=trust_remote_code)
        check_layers(parse_layers(recipe.edit.layers), anatomy_of(config, trust_remote_code=trust_remote_code))

    @cached_property
    def base(self) -> Model:
        model = self._load(self.source.path)
        model.source = self.source
        return model

    @cached_property
    def base_logprobs(self) -> Any:
        """The base's first-token log-probabilities on the answered set, for the KL divergence."""
        answered = self.sets["answered"]
        return None if answered is None else first_token_logprobs(self.base, answered, self._format(self.base))

    def carry_out(self, folder: RunFolder, keep_failed: bool) -> dict[str, Any]:
        recipe = self.recipe
        model = {
            "files": fingerprint(self.source.path),
            "dtype": recipe.dtype,
            "system": recipe.system,
            "template": recipe.template,
        }
        measured = [_digests(*self.sets.values()), recipe.evaluate.model_dump()]
        sought = [_digests(self.target, self.baseline, *self.validation), recipe.find.model_dump(), recipe.seed]
        verified = [self.verify_prompts.content_sha256, recipe.verify.model_dump()]
        baseline = folder.step(
            "baseline",
            [model, measured],
            ("answers/baseline.jsonl",),
            lambda: self._evaluate(self.base, folder.path / "answers/baseline.jsonl", against=False),
        )
        found = folder.step(
            "find",
            [model, sought],
            (DIRECTIONS,),
            lambda: self._find(folder.path),
        )
        edit = [model, found["sha256"], recipe.edit.model_dump()]
        finished = [edit, measured, verified, recipe.bounds.model_dump()]
        model_folder = folder.path / MODEL
        if model_folder.exists() and folder.state.get("finished") == [*finished, fingerprint(model_folder)]:
            folder.log("the edited model is finished already")
            steps = folder.state["steps"]
            return _summary(baseline, found, steps["evaluate"]["result"], steps["verify"]["result"])
        folder.state["finished"] = None
        for leftover in (model_folder, folder.path / FAILED):
            if leftover.exists():
                shutil.rmtree(leftover)
        unverified = folder.path / UNVERIFIED
        folder.step("bake", edit, (UNVERIFIED,), lambda: self._bake(folder, unverified))
        # The last use of the base: it makes room for the models that are verified and measured.
        _ = self.base_logprobs
        self.__dict__.pop("base", None)
        checked, edited = None, {}
        try:
            checked = folder.step("verify", [edit, verified], (), lambda: self._verify(folder.path, unverified))
            problems = list(checked["problems"])
            if not problems:
                edited = folder.step(
                    "evaluate",
                    [edit, measured],
                    ("answers/edited.jsonl",),
                    lambda: self._evaluate(self._load(unverified), folder.path / "answers/edited.jsonl", against=True),
                )
                problems = beyond_bounds(recipe.bounds, baseline, edited)
        except VerificationError as error:
            # A loss that is not finite, say: what could not be measured has not passed.
            problems = [str(error)]
        summary = _summary(baseline, found, edited, checked)
        self._settle(folder, unverified, summary, problems, keep_failed)
        folder.state["finished"] = [*finished, fingerprint(model_folder)]
        return summary

    def _settle(
        self,
        folder: RunFolder,
        unverified: Path,
        summary: dict[str, Any],
        problems: list[str],
        keep_failed: bool,
    ) -> None:
        """Rename the model to what it has become."""
        if not problems:
            stamp(unverified, summary)
            unverified.rename(folder.path / MODEL)
            return
        folder.forget("bake", "verify", "evaluate")
        if keep_failed:
            stamp(unverified, summary, failed=tuple(problems))
            unverified.rename(folder.path / FAILED)
        else:
            shutil.rmtree(unverified)
        kept = f"; the model is kept as {FAILED}" if keep_failed else "; no model was kept (see --keep-failed)"
        more = f" (and {len(problems) - 1} more in {folder.path}/log.txt)" if len(problems) > 1 else ""
        for problem in problems:
            folder.log(f"problem: {problem}")
        raise VerificationError(f"{problems[0]}{more}{kept}")

    def _find(self, out: Path) -> dict[str, Any]:
        section = self.recipe.find
        directions = find_directions(
            self.base,
            self.target,
            self.baseline,
            validation_target=self.validation[0],
            validation_baseline=self.validation[1],
            n_train=section.n_train,
            n_validation=section.n_validation,
            format=self._format(self.base),
            method=section.method,
            refusal_tokens=section.refusal_tokens,
            rule=SelectionRule(section.max_kl, section.min_induce, section.max_layer_fraction),
            filter_prompts=section.filter_prompts,
            best_effort=section.best_effort,
            seed=self.recipe.seed,
        )
        directions.save(out / DIRECTIONS)
        meta = directions.metadata
        scores = meta["scores"]
        chosen = next(s for s in scores if (s["layer"], s["position"]) == (meta["layer"], meta["position"]))
        return {
            **{key: meta[key] for key in ("method", "layer", "position", "warnings", "refusal_tokens", "separation")},
            **{key: chosen[key] for key in ("bypass", "induce", "kl")},
            "candidates": len(scores),
            "kept_bounds": sum(score["rejected"] is None for score in scores),
            "sha256": sha256(out / DIRECTIONS),
        }

    def _bake(self, folder: RunFolder, unverified: Path) -> dict[str, Any]:
        # What was found out about an earlier bake says nothing about this one.
        folder.forget("verify", "evaluate")
        if unverified.exists():
            shutil.rmtree(unverified)
        section = self.recipe.edit
        result = bake(
            self.recipe.model,
            load_directions(folder.path / DIRECTIONS),
            unverified,
            edit=section.kind,
            strength=section.strength,
            layers=parse_layers(section.layers),
            embeddings=section.embeddings,
            projector=section.projector,
            mtp=section.mtp,
            revision=self.recipe.revision,
            token=self.token,
            trust_remote_code=self.trust_remote_code,
        )
        return {**result.to_dict(), "path": MODEL}

    def _verify(self, out: Path, unverified: Path) -> dict[str, Any]:
        section = self.recipe.verify
        return verify(
            self.recipe.model,
            unverified,
            directions=load_directions(out / DIRECTIONS),
            prompts=self.verify_prompts,
            n_prompts=section.n_prompts,
            system=self.recipe.system,
            template=self.recipe.template,
            revision=self.recipe.revision,
            token=self.token,
            device=self.recipe.device,
            trust_remote_code=self.trust_remote_code,
        ).to_dict()

    def _evaluate(self, model: Model, answers: Path, *, against: bool) -> dict[str, Any]:
        if not any(self.sets.values()):
            answers.touch()
            return {}
        return evaluate(
            model,
            refused=self.sets["refused"],
            answered=self.sets["answered"],
            over_refused=self.sets["over_refused"],
            harmless_looking=self.sets["harmless_looking"],
            base_logprobs=self.base_logprobs if against else None,
            format=self._format(model),
            max_new_tokens=self.recipe.evaluate.max_new_tokens,
            answers_path=answers,
        ).to_dict()

    def _load(self, path: Path) -> Model:
        return load(path, dtype=self.recipe.dtype, device=self.recipe.device, trust_remote_code=self.trust_remote_code)

    def _format(self, model: Model) -> ChatFormat:
        return ChatFormat(model.tokenizer, system=self.recipe.system, template=self.recipe.template)


def _prompts(spec: str | None, limit: int | None = None) -> PromptSet | None:
    if spec is None:
        return None
    return load_prompts(spec).at_most(limit)


def _digests(*sets: PromptSet | None) -> list[str | None]:
    """The content of prompt sets, answers included: a file may change under the same name."""
    return [None if prompts is None else prompts.content_sha256 for prompts in sets]


def _summary(baseline: Any, found: Any, edited: Any, checked: Any) -> dict[str, Any]:
    return {"baseline": baseline, "direction": found, "edited": edited, "verification": checked}
