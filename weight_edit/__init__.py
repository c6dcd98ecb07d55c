"""Find the direction that carries a behaviour in a language model, bake its removal into the weights, and prove it.

The verbs of the command line as functions; each is imported when it is first used:

    from weight_edit import find_directions, bake, verify, evaluate

Wherever a model or a prompt set is asked for, its name, a path or an object will do.
`enable_progress_bars` shows what the command line shows, and `progress_events` gives it to a program.
"""

from typing import TYPE_CHECKING

from weight_edit.errors import UnsupportedError, UsageError, VerificationError, WeightEditError
from weight_edit.utils.lazy import lazy_exports
from weight_edit.version import __version__

if TYPE_CHECKING:
    from weight_edit.adapters.adapter import AdapterResult, adapter
    from weight_edit.anatomy.parts import Anatomy
    from weight_edit.baking.bake import BakeResult, bake
    from weight_edit.costs.plan import CostPlan, plan_costs
    from weight_edit.difference.diff import diff
    from weight_edit.difference.result import Difference
    from weight_edit.directions.directions import Directions, load_directions
    from weight_edit.directions.find import find_directions
    from weight_edit.directions.selection import SelectionRule
    from weight_edit.directions.take import take_candidate
    from weight_edit.evaluation.endpoint.endpoint import Endpoint
    from weight_edit.evaluation.evaluate import evaluate
    from weight_edit.evaluation.judging import JudgedAnswers, judge_answers
    from weight_edit.evaluation.results import Evaluation
    from weight_edit.inspection.inspect import Inspection, inspect
    from weight_edit.packs.apply import ApplyResult, apply
    from weight_edit.packs.pack import PackResult, pack
    from weight_edit.packs.undo import UndoResult, undo
    from weight_edit.prompts.chat import ChatFormat
    from weight_edit.prompts.load import load_prompts
    from weight_edit.prompts.sets import PromptSet
    from weight_edit.publish.push import PushResult, push
    from weight_edit.recipe.recipe import Recipe, load_recipe
    from weight_edit.report.report import ReportResult, report_runs
    from weight_edit.runs.demo import demo
    from weight_edit.runs.run import RunResult, run
    from weight_edit.runtime.by_name import anatomy_of, generate
    from weight_edit.runtime.loading import Model, load
    from weight_edit.search.result import SearchResult
    from weight_edit.search.search import search_edits
    from weight_edit.tables.shown import show
    from weight_edit.utils.progress import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from weight_edit.utils.progress_events import progress_events
    from weight_edit.verification.verify import Verification, verify

_WHERE = {
    "Anatomy": "anatomy.parts",
    "BakeResult": "baking.bake",
    "bake": "baking.bake",
    "CostPlan": "costs.plan",
    "plan_costs": "costs.plan",
    "diff": "difference.diff",
    "Difference": "difference.result",
    "Directions": "directions.directions",
    "load_directions": "directions.directions",
    "find_directions": "directions.find",
    "SelectionRule": "directions.selection",
    "take_candidate": "directions.take",
    "Endpoint": "evaluation.endpoint.endpoint",
    "Evaluation": "evaluation.results",
    "evaluate": "evaluation.evaluate",
    "JudgedAnswers": "evaluation.judging",
    "judge_answers": "evaluation.judging",
    "Inspection": "inspection.inspect",
    "inspect": "inspection.inspect",
    "ApplyResult": "packs.apply",
    "apply": "packs.apply",
    "PackResult": "packs.pack",
    "pack": "packs.pack",
    "UndoResult": "packs.undo",
    "undo": "packs.undo",
    "ChatFormat": "prompts.chat",
    "load_prompts": "prompts.load",
    "PromptSet": "prompts.sets",
    "AdapterResult": "adapters.adapter",
    "adapter": "adapters.adapter",
    "PushResult": "publish.push",
    "push": "publish.push",
    "Recipe": "recipe.recipe",
    "load_recipe": "recipe.recipe",
    "ReportResult": "report.report",
    "report_runs": "report.report",
    "demo": "runs.demo",
    "RunResult": "runs.run",
    "run": "runs.run",
    "anatomy_of": "runtime.by_name",
    "generate": "runtime.by_name",
    "Model": "runtime.loading",
    "load": "runtime.loading",
    "SearchResult": "search.result",
    "search_edits": "search.search",
    "show": "tables.shown",
    "are_progress_bars_disabled": "utils.progress",
    "disable_progress_bars": "utils.progress",
    "enable_progress_bars": "utils.progress",
    "progress_events": "utils.progress_events",
    "Verification": "verification.verify",
    "verify": "verification.verify",
}

__all__ = [
    "AdapterResult",
    "Anatomy",
    "ApplyResult",
    "BakeResult",
    "ChatFormat",
    "CostPlan",
    "Difference",
    "Directions",
    "Endpoint",
    "Evaluation",
    "Inspection",
    "JudgedAnswers",
    "Model",
    "PackResult",
    "PromptSet",
    "PushResult",
    "Recipe",
    "ReportResult",
    "RunResult",
    "SearchResult",
    "SelectionRule",
    "UndoResult",
    "UnsupportedError",
    "UsageError",
    "Verification",
    "VerificationError",
    "WeightEditError",
    "__version__",
    "adapter",
    "anatomy_of",
    "apply",
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
    "judge_answers",
    "load",
    "load_directions",
    "load_prompts",
    "load_recipe",
    "pack",
    "plan_costs",
    "progress_events",
    "push",
    "report_runs",
    "run",
    "search_edits",
    "show",
    "take_candidate",
    "undo",
    "verify",
]


__getattr__ = lazy_exports(__name__, _WHERE)
