"""The demo on the embedded model, and its JSON document for `--json`."""

from pathlib import Path
from typing import Any

from weight_edit.evaluation.figures import value
from weight_edit.recipe.bundled import recipe_folder
from weight_edit.recipe.recipe import load_recipe
from weight_edit.runs.run import RunResult, run


def demo(out: str | Path, *, resume: bool = False, overwrite: bool = False) -> RunResult:
    """Run `recipes/organism.yaml`: find, bake, prove and measure on the embedded model.

    It takes less than a minute.

    Args:
        out: the run's folder; the edited model will be `out/model`.
        resume: go on with an earlier one in it that was interrupted.
        overwrite: replace an earlier run in it.

    Raises:
        UsageError: `out` is not empty, has nothing to resume, or cannot be written.
        VerificationError: a check failed, or the damage is beyond the recipe's bounds.
    """
    return run(load_recipe(recipe_folder() / "organism.yaml"), out, resume=resume, overwrite=overwrite)


def document(result: RunResult) -> dict[str, Any]:
    """The JSON document of a demo: the figures that scripts rely on, and paths."""
    baseline, edited, checked = (result.summary[key] for key in ("baseline", "edited", "verification"))

    def rates(evaluation: dict[str, Any]) -> dict[str, Any]:
        return {
            "refusal": evaluation["sets"]["refused"]["refusal"],
            "over_refusal": evaluation["sets"]["over_refused"]["refusal"],
            "ordinary_refused": evaluation["sets"]["answered"]["refusal"],
            "harmless_looking_refused": evaluation["sets"]["harmless_looking"]["refusal"],
            "answers_right": value(evaluation, "sets.answered.exact.value"),
        }

    return {
        "baseline": rates(baseline),
        "edited": {
            **rates(edited),
            "kl": edited["divergence"]["mean"],
            "helpful_recovered": value(edited, "sets.refused.exact.value"),
        },
        "verification": {key: checked[key] for key in ("passed", "integrity", "leak", "logit_difference")},
        "seconds": result.summary["seconds"],
        "path": str(result.path),
        "model": str(result.model),
    }
