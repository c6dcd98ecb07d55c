"""Find the direction that carries a behaviour in a language model, bake its removal into the weights, and prove it.

The verbs of the command line as functions; each is imported when it is first used:

    from weight_edit import find_directions, bake, verify, evaluate

Wherever a model or a prompt set is asked for, its name, a path or an object will do.
`enable_progress_bars` shows what the command line shows.
"""

from typing import TYPE_CHECKING

from weight_edit.errors import UnsupportedError, UsageError, VerificationError, WeightEditError
from weight_edit.lazy import lazy
from weight_edit.version import __version__

if TYPE_CHECKING:
    from weight_edit.anatomy import Anatomy
    from weight_edit.baking import BakeResult, bake
    from weight_edit.demonstration import demo
    from weight_edit.difference.diff import diff
    from weight_edit.difference.result import Difference
    from weight_edit.directions.artifact import Directions, load_directions
    from weight_edit.directions.find import find_directions
    from weight_edit.directions.selection import SelectionRule
    from weight_edit.evaluation.evaluate import Evaluation, evaluate
    from weight_edit.inspection import Inspection, inspect
    from weight_edit.progress import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from weight_edit.prompts import ChatFormat, PromptSet, load_prompts
    from weight_edit.publish.adapter import AdapterResult, adapter
    from weight_edit.publish.hub import PushResult, push
    from weight_edit.recipe import Recipe, load_recipe
    from weight_edit.running import RunResult, run
    from weight_edit.runtime import Model, load
    from weight_edit.surface import anatomy_of, generate
    from weight_edit.verification.verify import Verification, verify

_WHERE = {
    "Anatomy": "anatomy",
    "anatomy_of": "surface",
    "BakeResult": "baking",
    "bake": "baking",
    "demo": "demonstration",
    "diff": "difference.diff",
    "Difference": "difference.result",
    "Directions": "directions.artifact",
    "load_directions": "directions.artifact",
    "find_directions": "directions.find",
    "SelectionRule": "directions.selection",
    "Evaluation": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "Inspection": "inspection",
    "inspect": "inspection",
    "are_progress_bars_disabled": "progress",
    "disable_progress_bars": "progress",
    "enable_progress_bars": "progress",
    "ChatFormat": "prompts",
    "PromptSet": "prompts",
    "load_prompts": "prompts",
    "AdapterResult": "publish.adapter",
    "adapter": "publish.adapter",
    "PushResult": "publish.hub",
    "push": "publish.hub",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "RunResult": "running",
    "run": "running",
    "Model": "runtime",
    "generate": "surface",
    "load": "runtime",
    "Verification": "verification.verify",
    "verify": "verification.verify",
}

__all__ = [
    "AdapterResult",
    "Anatomy",
    "BakeResult",
    "ChatFormat",
    "Difference",
    "Directions",
    "Evaluation",
    "Inspection",
    "Model",
    "PromptSet",
    "PushResult",
    "Recipe",
    "RunResult",
    "SelectionRule",
    "UnsupportedError",
    "UsageError",
    "Verification",
    "VerificationError",
    "WeightEditError",
    "__version__",
    "adapter",
    "anatomy_of",
    "are_progress_bars_disabled",
    "bake",
    "demo",
    "diff",
    "disable_progress_bars",
    "enable_progress_bars",
    "evaluate",
    "find_directions",
    "generate",
    "inspect",
    "load",
    "load_directions",
    "load_prompts",
    "load_recipe",
    "push",
    "run",
    "verify",
]


__getattr__ = lazy(__name__, _WHERE)
