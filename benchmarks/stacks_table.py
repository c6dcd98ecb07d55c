"""Greedy tokens of a base and its edits by every inference stack against transformers' own, as a table in markdown.

    PYTHONPATH=.:tools python benchmarks/stacks_table.py [FOLDER...] [--stacks NAME...] [--new-tokens N]

Without folders the small models of every family are asked. Stacks that are not installed are told by name: `make
stacks` installs them. A cell says whether all tokens are transformers' own; where a stack differs, what it has
dropped, if dropping it in transformers gives what the stack says.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from stacks.cases import EDITS, Case, cases
from stacks.comparison import Agreement, agreement
from stacks.environment import Stack, stacks
from stacks.replies import Asked, Prompts, Reply, StackError, replies
from stacks.small_models import FAMILIES, PRE_TOKENIZER, small_model
from stacks.suspects import explanation, reference
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

TEXTS = (
    "The capital of France is", "Water boils at a temperature of", "How do I sharpen a pencil?", "Once upon a time, a",
    "The three primary colours are", "A recipe for bread begins with", "In the year 1969, people first",
    "My favourite season is autumn, because", "To plant a tree, first dig", "The opposite of hot is",
    "A good way to learn a language is", "The moon goes around",
)  # fmt: skip


Said = dict[str, list[Reply] | StackError]
"""Name of a case -> what a stack says of it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--stacks", nargs="+", default=list(stacks()))
    parser.add_argument("--edits", nargs="+", default=list(EDITS), choices=list(EDITS))
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--prompts", type=int, default=len(TEXTS))
    parser.add_argument("--work", type=Path, help="where edits are kept; a temporary folder by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        named = {folder.name: folder for folder in options.folders}
        if not named:
            work.mkdir(parents=True, exist_ok=True)
            named = {family: small_model(family, work / f"{family}-base") for family in options.families}
        asked = {name: _asked(folder, options, bool(options.folders)) for name, folder in named.items()}
        made = {
            name: cases(folder, work / f"{name}-edits", edits={edit: EDITS[edit] for edit in options.edits})
            for name, folder in named.items()
        }
        print("| model | stack | base | " + " | ".join(options.edits) + " | drops |")
        print("|---|---|---|" + "---|" * (len(options.edits) + 1), flush=True)
        for stack in (stacks()[each] for each in options.stacks):
            if not stack.is_installed():
                print(f"{stack.name}: not installed", file=sys.stderr)
                continue
            for names in [[name] for name in named] if options.folders else [list(named)]:
                # What shares its prompts is asked in one process.
                for name, said in _all_replies(stack, {name: made[name] for name in names}, asked[names[0]]).items():
                    print(row(f"{name} | {stack.title}", said, made[name], asked[name], options.edits), flush=True)


def _all_replies(stack: Stack, made: dict[str, list[Case]], prompts: Prompts) -> dict[str, Said]:
    """What a stack says of models that are asked the same: of each its cases by name."""
    peft = stack.name.startswith("peft")
    asked = [
        (name, case.name, Asked(cases[0].folder, case.adapter) if peft else Asked(case.folder))
        for name, cases in made.items()
        for case in cases
        if case.folder and cases[0].folder and not (peft and _unlike(stack, case))
    ]
    found: dict[str, Said] = {name: {} for name in made}
    for (name, case, _), said in zip(asked, replies(stack, [each for *_, each in asked], prompts), strict=True):
        found[name][case] = said
    return found


def _unlike(stack: Stack, case: Case) -> bool:
    """Whether there is no adapter that is this edit."""
    return (case.adapter is None and case.name != "base") or (case.when_merged and stack.name == "peft")


def _asked(folder: Path, options: argparse.Namespace, published: bool) -> Prompts:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = TEXTS[: options.prompts]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    named = None if published else PRE_TOKENIZER
    return Prompts(texts=texts, ids=ids, new_tokens=options.new_tokens, pre_tokenizer=named)


def row(title: str, said: Said, made: Sequence[Case], prompts: Prompts, edits: Sequence[str]) -> str:
    """A row of the table: one stack, one model and its edits."""
    noise, cells, drops = 0.0, {}, []
    for case in made:
        got = said.get(case.name)
        if got is None or case.folder is None:
            cells[case.name] = "refused by `bake`" if case.folder is None else "no adapter, or once merged"
            continue
        if isinstance(got, StackError):
            cells[case.name] = f"not run: {got}"
            continue
        found = compared(reference(case.folder), prompts, got)
        # The base sets what a margin may be off by, or what it shows where it differs because something is dropped.
        if case.name == "base":
            noise = found.noise
        if found.holds(noise):
            cells[case.name] = found.verdict(noise) + (f", {found.misread} prompts misread" if found.misread else "")
            continue
        dropped, quieter = _dropped(case.folder, prompts, got, noise if case.name != "base" else None)
        if case.name == "base" and quieter is not None:
            noise = quieter
        cells[case.name] = found.verdict(noise)
        drops.append(dropped or "unexplained")
    shown = [cells.get(each, "-") for each in ("base", *edits)]
    return f"| {title} | " + " | ".join(shown) + f" | {'; '.join(dict.fromkeys(drops)) or 'nothing'} |"


def _dropped(folder: Path, prompts: Prompts, got: list[Reply], noise: float | None) -> tuple[str | None, float | None]:
    """What a stack drops, and its noise without that."""
    last: list[Agreement] = []

    def agrees(model: object) -> bool:
        last.append(compared(model, prompts, got))
        # Where no noise is known yet it is the same replies' own: then no place may differ at all.
        return last[-1].holds(noise) if noise is not None else not last[-1].margins and not last[-1].stopped

    found = explanation(folder, agrees)
    return found, (last[-1].noise if found else None)


def compared(model: object, prompts: Prompts, got: list[Reply]) -> Agreement:
    """A stack's replies held to a model of transformers."""
    ends = model.generation_config.eos_token_id  # type: ignore[attr-defined]
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    return agreement(model, prompts.ids, got, ends=ends, new_tokens=prompts.new_tokens)


if __name__ == "__main__":
    main()
