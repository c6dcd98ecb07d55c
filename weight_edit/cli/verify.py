"""The verb `verify`: an edited model against its base."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from weight_edit.cli.call import as_dict, call, say_card
from weight_edit.cli.options import (
    Card,
    Device,
    Json,
    Offload,
    Quiet,
    Remote,
    Revision,
    System,
    Template,
    TemplateArg,
    Token,
)
from weight_edit.errors import UsageError
from weight_edit.utils.progress import starting

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.cli.tables.documents import EffectDocument
    from weight_edit.verification.verify import Verification


def verify(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model that was edited.")],
    edited: Annotated[Path, typer.Argument(metavar="EDITED", help="The folder that bake wrote.")],
    directions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The directions file; by default those in weight_edit.json.")
    ] = None,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Check the files alone; no model is loaded.")
    ] = False,
    prompts: Annotated[
        str | None, typer.Option(metavar="PROMPTS", help="What the models run on; ordinary built-in ones if absent.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many of the prompts.")] = 16,
    system: System = None,
    template: Template = None,
    template_arg: TemplateArg = None,
    device: Device = None,
    offload: Offload = False,
    card: Card = True,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check integrity, completeness and faithfulness of an edited model; exit code 4 when a check fails.

    What was measured goes into the card of a model that passes.

    Example: `weight-edit verify organism edited-model`
    """

    def work() -> "Verification":
        from weight_edit.checkpoint.manifest import check_folder, check_order
        from weight_edit.prompts.templates import template_args

        if weights_only and prompts:
            raise UsageError("--weights-only runs no model, so --prompts has no use; leave one of the two out")
        variables = template_args(template_arg)
        check_order(base, edited, manifest_needed=directions is None)
        check_folder(edited)
        loaded = None
        if prompts:
            from weight_edit.hub.calls import dataset_token
            from weight_edit.prompts.load import load_prompts

            with dataset_token(token):
                loaded = load_prompts(prompts)
        # Takes seconds to import: what is wrong with the call is said at once.
        with starting():
            from weight_edit.verification.verify import verify as check

        return check(
            base,
            edited,
            directions=directions,
            weights_only=weights_only,
            prompts=loaded,
            limit=limit,
            system=system,
            template=template,
            template_args=variables,
            device=device,
            offload=offload,
            revision=revision,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    def show(result: "Verification", console: "Console") -> None:
        from weight_edit.cli.tables.results import effect, suggest, verification

        verification(result, console)
        if not result.passed:
            return
        found = _effect(edited, result)
        effect(found, console)
        if found is None:
            lead = "Whether the behaviour changed is another question: "
            prompts = ("--refused", "PROMPTS", "--answered", "PROMPTS")
            suggest(console, "evaluate", edited, "--against", base, *prompts, lead=lead)

    def document(result: "Verification") -> Mapping[str, object]:
        return {**as_dict(result), "effect": _effect(edited, result) if result.passed else None}

    checked = call(work, show, document, as_json=as_json, quiet=quiet)
    if not checked.passed:
        raise SystemExit(4)
    if card:
        from weight_edit.baking.card.update import fill_in

        say_card(fill_in(edited, verification=checked.to_dict(), digests_checked=True))


def _effect(edited: Path, checked: "Verification") -> "EffectDocument | None":
    """Whether the edit had an effect, by the evaluation that its folder records; None where there is none."""
    from weight_edit.baking.card.card_and_manifest import recorded_measurements
    from weight_edit.evaluation.effect import effect_document

    measured = recorded_measurements(edited).get("edited") or {}
    return cast("EffectDocument | None", effect_document(measured, checked.to_dict()))
