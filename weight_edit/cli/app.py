"""The command `weight-edit`: its help, its own options, and the list of verbs."""

from collections.abc import Callable
from typing import Annotated

import typer

from weight_edit.cli.adapter import adapter
from weight_edit.cli.apply import apply
from weight_edit.cli.bake import bake
from weight_edit.cli.chat import chat
from weight_edit.cli.choices import edits, judges, methods
from weight_edit.cli.demo import demo
from weight_edit.cli.diff import diff
from weight_edit.cli.evaluate import evaluate
from weight_edit.cli.find import find
from weight_edit.cli.help_pages import RootCommand, VerbCommand, say_choices
from weight_edit.cli.inspect import inspect
from weight_edit.cli.judge import judge
from weight_edit.cli.log_format import with_log_format
from weight_edit.cli.pack import pack
from weight_edit.cli.plan import plan
from weight_edit.cli.push import push
from weight_edit.cli.report import report
from weight_edit.cli.run import run
from weight_edit.cli.search import search
from weight_edit.cli.take import take
from weight_edit.cli.ui import ui
from weight_edit.cli.undo import undo
from weight_edit.cli.verify import verify
from weight_edit.utils.registry_listing import as_help
from weight_edit.version import __version__

app = typer.Typer(
    name="weight-edit",
    cls=RootCommand,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Find the direction that carries a behaviour in a language model, bake its removal into the weights, "
    "and prove what the edit did.\n\nMODEL is a Hub id, a local folder, or `organism` (the embedded test model; "
    "`organism-defended` resists the ablation of one direction, `organism-thinking` thinks first, and in "
    "`organism-decoyed` the mean difference is a decoy).\n"
    "PROMPTS is a built-in set such as `organism:refused:test`, a public one such as `advbench` or "
    "`jailbreakbench:benign`, a file (.txt, .jsonl, .json, .csv, .parquet), or `org/dataset:split[:column]`."
    "\n\nStart with `weight-edit demo`.",
)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options before any verb."""
    if version:
        print(__version__)
        raise typer.Exit


def _register(verb: Callable[..., None], below: Callable[[], str] = str) -> None:
    """Add a function as a verb, at the end of the list of verbs.

    Args:
        below: makes what stands at the end of its help; not called before that is asked for.
    """
    verb = with_log_format(verb)
    say_choices(verb)
    app.command(cls=type("Command", (VerbCommand,), {"below": staticmethod(below)}))(verb)


def _methods() -> str:
    return "\n\n".join([as_help("Methods", methods()), _public_sets()])


def _kinds() -> str:
    return as_help("Kinds of edits", edits())


def _public_sets() -> str:
    from weight_edit.prompts.public_sets import public_sets

    lines = [f"- **{name}**: {found.summary}" for name, found in public_sets().items()]
    return "\n\n".join(["Public sets for PROMPTS, downloaded from the Hub when they are used:", *lines])


def _judges() -> str:
    return as_help("Judges", judges())


def _recipes() -> str:
    from weight_edit.recipe.bundled import OVERLAYS, bundled_recipes

    lines = [f"- `--set {example}`: {what}" for example, what in OVERRIDES.items()]
    return "\n\n".join(
        (
            "Keys of `--set` are those of the recipe, with dots for its sections, for example:",
            "\n".join(lines),
            "A wrong key is refused with the nearest right one. All are listed in docs/recipes.md, and `recipe.yaml` "
            "in a run's folder has each with its value.",
            f"Bundled recipes: {', '.join(bundled_recipes())}. Overlays: {', '.join(OVERLAYS)}.",
        )
    )


OVERRIDES = {
    "dtype=float32": "the numbers that the model computes in",
    "device=cpu": "where it computes",
    "prompts.refused=FILE": "other prompts; -validation and -test behind the name for those that judge",
    "find.method=leace": "how the direction is found",
    "find.n_train=64": "training prompts of each class",
    "edit.strength=0.5": "a part of the edit",
    "evaluate.limit=50": "prompts of each measured set",
    "evaluate.max_new_tokens=64": "the length of answers",
    "bounds.max_refusal=null": "a bound taken away",
}
"""Examples of overrides -> what they do."""

# As on a user's first day.
_register(demo)
_register(run, _recipes)
_register(inspect)
_register(plan, _methods)
_register(find, _methods)
_register(take)
_register(search, _methods)
_register(bake, _kinds)
_register(verify, _public_sets)
_register(evaluate, _public_sets)
_register(judge, _judges)
_register(report)
_register(chat, _kinds)
_register(diff)
_register(adapter, _kinds)
_register(pack)
_register(apply)
_register(undo)
_register(push)
_register(ui)
