"""Options that several verbs of the command line share, with their help texts."""

from pathlib import Path
from typing import Annotated

import typer

from weight_edit.redaction import given_token

MODEL_HELP = (
    "A Hub id, a folder, a .gguf file, or an embedded model: 'organism', or 'organism-defended', '-thinking' or "
    "'-decoyed'."
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
Out = Annotated[Path, typer.Option(help="Output folder; it appears whole or not at all.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, on a terminal or elsewhere.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output of this tool.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub model.")]
Token = Annotated[
    str | None,
    typer.Option(envvar="HF_TOKEN", show_envvar=False, callback=given_token, help="Hub token, if not logged in."),
]
Remote = Annotated[bool, typer.Option("--trust-remote-code", help="Allow the model's own Python code to run.")]
System = Annotated[str | None, typer.Option(help="System prompt.")]
Template = Annotated[
    str | None, typer.Option(help="'plain' for a model without a chat template, or the name of one of several.")
]
TemplateArg = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="A variable of the chat template: `--template-arg enable_thinking=false`."),
]
Thinking = Annotated[
    str | None,
    typer.Option(help="Whether the model thinks first: by the template's own switch, or as it ends a thought."),
]
Dtype = Annotated[str, typer.Option(help="Dtype of the weights; auto is what the checkpoint stores.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto; CUDA when there is one.")]
Offload = Annotated[
    bool, typer.Option("--offload", help="Leave the weights on disk: for a model that is larger than the memory.")
]
EditKind = Annotated[str, typer.Option(help="The kind of edit, see below: `--kind affine`, `--kind add --at 12`.")]
Strength = Annotated[
    float, typer.Option(help="1 is the full edit, 0.5 half of it; of add the vector's factor, and may be negative.")
]
At = Annotated[
    str | None,
    typer.Option(help="Layers at whose input the edit is made: `--kind add --at 12,13`, `--kind reflect --at 3`."),
]
Kernel = Annotated[
    str | None,
    typer.Option(
        metavar="YAML",
        help="Factors by layer, `'{attention: {max: 1.2, position: 0.6, width: 0.4}, embedding: 0.5}'`; also mlp, and "
        "a number for each layer: `'{mlp: [1, 0.5, 0]}'`.",
    ),
]
EditOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Of the kind of edit: `--kind affine --option toward=target`."),
]
Layers = Annotated[str | None, typer.Option(help="Blocks to edit, such as 0-31 or 4,8-12; all by default.")]
Embeddings = Annotated[str, typer.Option(help="What happens where embeddings are tied.")]
Projector = Annotated[
    str,
    typer.Option(help="What brings images and sounds in is edited, all of it that is known, or none."),
]
Mtp = Annotated[str, typer.Option(help="Multi-token-prediction layers that lie beside the model.")]
DirectionsFile = Annotated[
    Path,
    typer.Option(
        "--directions",
        metavar="FILE",
        help="From find, or any safetensors file whose tensor `direction` has them as rows.",
    ),
]
Orthonormalize = Annotated[bool, typer.Option("--orthonormalize", help="Make the file's rows orthonormal first.")]
Dequantize = Annotated[
    bool, typer.Option("--dequantize", help="Write edited tensors of a quantised folder as bfloat16.")
]
Rounding = Annotated[
    str, typer.Option(help="Rounding of quantised weights: balanced keeps the edit, nearest may round it away.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted bake of the same output.")]
Link = Annotated[bool, typer.Option("--link", help="Hard links for untouched files; for local experiments.")]
AllowNonfinite = Annotated[
    bool, typer.Option("--allow-nonfinite", help="Copy untouched tensors with NaN or infinities, instead of stopping.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would be written, and how long.")]
Card = Annotated[bool, typer.Option("--card/--no-card", help="Fill in the card of an output with what was measured.")]
BaseModel = Annotated[
    str | None,
    typer.Option(metavar="ID", help="The base's id on the Hub, for the card, where the base is a local folder."),
]
LowDisk = Annotated[
    bool, typer.Option("--low-disk", help="Of a Hub model, download, rewrite and delete one shard at a time.")
]
Report = Annotated[bool, typer.Option("--report/--no-report", help="Make a page of it at the end: report/report.html.")]
