"""The groups of options in a verb's help; a test requires a group for every option."""

from collections.abc import Collection, Iterable

GROUPS: dict[str, tuple[str, ...]] = {
    "Prompts": (
        "--target",
        "--baseline",
        "--tokens",
        "--prefix-tokens",
        "--protect",
        "--validation-target",
        "--validation-baseline",
        "--n-train",
        "--n-validation",
        "--filter",
        "--refused",
        "--answered",
        "--over-refused",
        "--harmless-looking",
        "--text",
        "--limit",
        "--prompts",
        "--system",
        "--template",
        "--template-arg",
        "--thinking",
    ),
    "Method": (
        "--method",
        "--option",
        "--positions",
        "--candidates",
        "--refusal-token",
        "--tokens-from",
        "--n-answers",
        "--seed",
    ),
    "Choice": (
        "--select",
        "--max-kl",
        "--max-protected-kl",
        "--min-induce",
        "--max-layer-fraction",
        "--n-more",
        "--confirm",
        "--confirm-by",
        "--best-effort",
    ),
    "Edit": (
        "--directions",
        "--orthonormalize",
        "--kind",
        "--strength",
        "--layers",
        "--at",
        "--kernel",
        "--embeddings",
        "--projector",
        "--mtp",
        "--dequantize",
        "--rounding",
        "--allow-nonfinite",
    ),
    "What is done": (
        "--prove",
        "--all",
        "--only",
        "--page",
        "--weights-only",
        "--against",
        "--max-new-tokens",
        "--batch-size",
        "--lengths",
        "--kl-tokens",
        "--judge",
        "--labels",
        "--power",
        "--harness",
        "--harness-limit",
        "--harness-chat",
        "--harness-tasks-path",
        "--set",
        "--with",
        "--exit-code",
        "--list",
        "--trials",
        "--n-evaluate",
    ),
    "Machine": ("--offload", "--processes", "--calibrate", "--flops", "--disk-rate"),
    "Output": (
        "--out",
        "--answers",
        "--harness-out",
        "--lm-eval-json",
        "--save",
        "--overwrite",
        "--card",
        "--resume",
        "--keep-failed",
        "--link",
        "--low-disk",
        "--dry-run",
        "--private",
        "--base",
        "--base-model",
        "--card",
    ),
    "Model": (
        "--endpoint",
        "--model",
        "--against-endpoint",
        "--adapter",
        "--backend",
        "--concurrency",
        "--fresh",
        "--dtype",
        "--device",
        "--offload",
        "--revision",
        "--revision-a",
        "--revision-b",
        "--token",
        "--trust-remote-code",
    ),
    "Terminal": ("--json", "--quiet", "--help", "--version", "--install-completion", "--show-completion"),
}
"""Group's title -> its options, both in the order of the help."""

OTHERS = "Other options"
"""The group of options without an entry above."""


def group_of(option: Iterable[str], verb: Collection[str]) -> str:
    """The group of an option.

    Args:
        option: its names.
        verb: those of all options of its verb: `--option` belongs to the method where there is one, else to the edit.
    """
    names = set(option)
    if "--option" in names and "--method" not in verb:
        names = {"--kind"}
    return next((title for title, members in GROUPS.items() if names & set(members)), OTHERS)
