"""The verb `chat`: a model talked to, with its base or with an edit under trial beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call
from weight_edit.cli.options import (
    At,
    Device,
    Dtype,
    EditKind,
    EditOption,
    Json,
    Layers,
    Model,
    Offload,
    Orthonormalize,
    Overwrite,
    Quiet,
    Remote,
    Revision,
    Strength,
    System,
    Template,
    TemplateArg,
    Thinking,
    Token,
)
from weight_edit.utils.progress import starting

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.chat.chat import ChatResult


def chat(
    model: Model,
    against: Annotated[
        str | None, typer.Option(metavar="BASE", help="The base, which answers beside MODEL: two models in memory.")
    ] = None,
    directions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Directions of an edit that is tried on MODEL as hooks, with the unedited MODEL beside it. With "
            "--against, what is measured along them.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="A recipe whose edit is tried in place of one of --directions, such as a point of a search; "
            "--strength multiplies its own.",
        ),
    ] = None,
    alone: Annotated[bool, typer.Option("--alone", help="MODEL under the edit, without the unedited one.")] = False,
    kind: EditKind = "ablate",
    strength: Strength = 1.0,
    layers: Layers = None,
    at: At = None,
    option: EditOption = None,
    orthonormalize: Orthonormalize = False,
    measure_at: Annotated[
        int | None,
        typer.Option(help="Block at whose input the bars measure; where the directions were found by default."),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="ADAPTER", help="A PEFT LoRA adapter on MODEL: a folder or a Hub id.")
    ] = None,
    system: System = None,
    template: Template = None,
    template_arg: TemplateArg = None,
    thinking: Thinking = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token, 1 draws as the model says.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the draws; both sides draw with the same numbers.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer, at most.")] = 512,
    memory: Annotated[
        bool | None,
        typer.Option(
            "--memory/--no-memory",
            help="Whether earlier turns are part of what is asked; by default they are, but for the embedded models, "
            "which know single questions alone.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[str, typer.Option(help="A bar beside each line, each token, or none.")] = "lines",
    history: Annotated[
        bool, typer.Option("--history", help="Keep the lines you type for your next chats, in your cache folder.")
    ] = False,
    save_chat: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the conversation to a .json or .md file after each turn."),
    ] = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "auto",
    device: Device = None,
    offload: Offload = False,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Talk to a model: alone, beside its base, or beside itself under an edit.

    Answers stream side by side; a bar beside each line says how far the stream goes along the direction while the model
    says it. With --directions nothing is baked: kind, strength and layers of the edit are changed while you chat
    (`/strength 0.7`, `/kind reflect`), and `/save recipe.yaml` writes what `weight-edit run` bakes. `/help` lists all
    commands. Ctrl-C stops an answer, Ctrl-D leaves.

    Prompts may be private: nothing you type is kept anywhere, unless --history, --save-chat or /save-chat says so.
    A model whose refusal was edited answers what its base refuses; what you do with that is yours to answer for.

    Prompts and commands can also come through a pipe, a line each; --json then gives the whole chat, with every token's
    component.

    Example: `weight-edit chat organism --directions directions.safetensors`

    Two models: `weight-edit chat edited-model --against organism`
    """

    def work() -> "ChatResult":
        from weight_edit.cli.values import key_values
        from weight_edit.directions.file import read_rows
        from weight_edit.plan.plan import parse_layers
        from weight_edit.prompts.templates import template_args
        from weight_edit.runtime.options import FormatOptions, LoadOptions

        load_options = LoadOptions(
            dtype=dtype,
            device=device,
            revision=revision,
            token=token,
            trust_remote_code=trust_remote_code,
            adapter=adapter,
            offload=offload,
        )
        load_options.check_name(model)
        if against is not None:
            load_options.of_base().check_name(against)
        if directions is not None:
            read_rows(directions, orthonormalize=orthonormalize)
        # Takes seconds to import: what is wrong with a name is said at once.
        with starting():
            from weight_edit.chat.chat import hold_chat
            from weight_edit.chat.sampling import Sampling
            from weight_edit.runs.recipe_edit import recipe_edit

        return hold_chat(
            model,
            shown=show,
            save_chat=save_chat,
            overwrite=overwrite,
            history=history,
            silent=as_json,
            against=against,
            directions=directions,
            edit_step=None if recipe is None else recipe_edit(recipe),
            orthonormalize=orthonormalize,
            kind=kind,
            strength=strength,
            layers=layers,
            at=sorted(parse_layers(at) or ()),
            edit_options=key_values(option, "--option"),
            alone=alone,
            measure_at=measure_at,
            load_options=load_options,
            format_options=FormatOptions(
                system=system, template=template, template_args=template_args(template_arg), thinking=thinking
            ),
            sampling=Sampling(temperature=temperature, seed=seed, max_new_tokens=max_new_tokens),
            memory=memory,
        )

    def shown(result: "ChatResult", console: "Console") -> None:
        """Nothing: all was shown while it was said."""

    def kept() -> str:
        if save_chat is None:
            typed = "; the lines that were typed are in the history" if history else ""
            return f"nothing of the chat was kept that you did not save{typed}"
        return f"the chat is in {save_chat}" if save_chat.exists() else "nothing was kept"

    done = call(work, shown, as_dict, as_json=as_json, quiet=quiet, kept=kept)
    if done.wrong:
        raise typer.Exit(2)
