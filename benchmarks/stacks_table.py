"""Greedy tokens of a base and its edits by every inference stack against transformers' own, as a table in markdown.

    PYTHONPATH=.:tools python benchmarks/stacks_table.py [MODEL...] [--stacks NAME...] [--new-tokens N]

MODEL is a folder or a GGUF file; without any the small models of every family are asked. A cell says whether all tokens
are transformers' own, which differ by near-ties, and how many of them the edit has changed: at so many places the base
has another answer, by transformers and by more than the noise where that was measured. Where a stack differs, the last
column says what it may have dropped: without that, transformers says what the stack says.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from stacks.cases import EDITS, Case, cases, unrounded
from stacks.copies import with_earlier_keys
from stacks.environment import Stack, stacks
from stacks.judging import changed, compared, judged
from stacks.replies import LIMIT, Asked, Prompts, Reply, StackError, absence, replies
from stacks.small_models import FAMILIES, PRE_TOKENIZER, small_model
from stacks.suspects import explanations, reference
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from weight_edit.runtime.loading import load
from weight_edit.utils.progress import set_quiet

TEXTS = (
    "The capital of France is", "Water boils at a temperature of", "How do I sharpen a pencil?", "Once upon a time, a",
    "The three primary colours are", "A recipe for bread begins with", "In the year 1969, people first",
    "My favourite season is autumn, because", "To plant a tree, first dig", "The opposite of hot is",
    "A good way to learn a language is", "The moon goes around",
)  # fmt: skip
REFUSALS = {
    "missing field `rope_theta`": "wants `rope_theta`",
    "base layer has no bias": "no bias to merge into",
    "parameters not in model": "a parameter too many",
    "`Gemma3ForCausalLM`": "`Gemma3ForCausalLM`",
}
"""Part of what a stack raises -> how the table says it; what is not listed is printed as it is."""
Said = dict[str, list[Reply] | StackError]
"""Name of a case -> what a stack says of it."""


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    disable_progress_bar()
    set_quiet(True)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        named = {model.name: model for model in options.models}
        if not named:
            # Made anew each time: nothing that lies there is taken for it.
            named = {family: small_model(family, Path(temporary) / f"{family}-base") for family in options.families}
        elif options.rope_theta:
            named = {
                f"{name}, with `rope_theta`": with_earlier_keys(model, Path(temporary) / name)
                for name, model in named.items()
            }
        asked = {name: _asked(model, options, published=bool(options.models)) for name, model in named.items()}
        edits = {edit: EDITS[edit] for edit in options.edits}
        made = {name: cases(model, work / f"{name}-edits", edits=edits) for name, model in named.items()}
        print("| model | stack | base | " + " | ".join(edits) + " | may drop |")
        print("|---|---|---|" + "---|" * (len(edits) + 1), flush=True)
        for stack in (stacks()[each] for each in options.stacks):
            for names in [[name] for name in named] if options.models else [list(named)]:
                # What shares its prompts is asked in one process.
                found = _all_replies(stack, {name: made[name] for name in names}, asked[names[0]], limit=options.limit)
                for name in names:
                    row = Row(stack=stack, said=found[name], cases=made[name], prompts=asked[name])
                    print(f"| {name} | {stack.title} | {row.cells(['base', *edits])} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rope-theta", action="store_true", help="ask copies whose configs have `rope_theta`, too")
    parser.add_argument("--stacks", nargs="+", default=list(stacks()), choices=list(stacks()))
    parser.add_argument("--edits", nargs="+", default=list(EDITS), choices=list(EDITS))
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--prompts", type=int, default=len(TEXTS))
    parser.add_argument("--work", type=Path, help="where edits are kept; a temporary folder by default")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a stack may take for each model")
    options = parser.parse_args()
    if options.rope_theta and not (options.models and all(each.is_dir() for each in options.models)):
        parser.error("--rope-theta is for folders")
    return options


def _all_replies(stack: Stack, made: dict[str, list[Case]], prompts: Prompts, *, limit: float) -> dict[str, Said]:
    """What a stack says of models that are asked the same: of each its cases by name."""
    found: dict[str, Said] = {name: {} for name in made}
    if reason := absence(stack):
        return {name: {case.name: StackError(f"not installed: {reason}") for case in made[name]} for name in made}
    asked = [
        (name, case.name, _model(stack, case, made[name][0]))
        for name in made
        for case in made[name]
        if not _left_out(stack, case)
    ]
    for (name, case, _), said in zip(
        asked, replies(stack, [each for *_, each in asked], prompts, limit=limit), strict=True
    ):
        found[name][case] = said
    return found


def _model(stack: Stack, case: Case, base: Case) -> Asked:
    model = base.model if stack.name.startswith("peft") else case.model
    assert model is not None
    return Asked(model, case.adapter if stack.name.startswith("peft") else None)


def _left_out(stack: Stack, case: Case) -> str | None:
    """Why a stack is not asked about a case; None where it is."""
    if case.model is None:
        return "refused by `bake`"
    if case.model.is_file() and stack.name != "llama-cpp":
        return "a GGUF file"
    if stack.name.startswith("peft") and case.name != "base":
        if case.adapter is None:
            return "refused by `adapter`"
        if case.when_merged and stack.name == "peft":
            return "once merged"
    return None


def _refusal(error: StackError) -> str:
    known = [short for part, short in REFUSALS.items() if part in str(error)]
    return f"refuses: {known[0]}" if known else str(error).replace("|", "/")


def _asked(model: Path, options: argparse.Namespace, *, published: bool) -> Prompts:
    tokenizer = load(model, device="cpu").tokenizer if model.is_file() else AutoTokenizer.from_pretrained(model)
    texts = TEXTS[: options.prompts]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    named = None if published else PRE_TOKENIZER
    return Prompts(texts=texts, ids=ids, new_tokens=options.new_tokens, pre_tokenizer=named)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: one stack, one model and its edits.

    Attributes:
        stack: who was asked.
        said: what it said, by the case's name.
        cases: the base first.
        prompts: what it was asked.
    """

    stack: Stack
    said: Said
    cases: Sequence[Case]
    prompts: Prompts

    @property
    def base(self) -> Path:
        """What was edited."""
        model = self.cases[0].model
        assert model is not None
        return model

    def cells(self, names: Sequence[str]) -> str:
        """The cells of these cases, and what the stack may drop."""
        found: dict[str, str] = {}
        drops: list[str] = []
        for case in self.cases:
            got = self.said.get(case.name)
            if got is None or case.model is None:
                found[case.name] = _left_out(self.stack, case) or "not asked"
            elif isinstance(got, StackError):
                found[case.name] = _refusal(got)
            else:
                agreement = compared(reference(case.model), self.prompts, got)
                verdict = judged(agreement, self.stack, case.model, self.prompts, got)
                found[case.name] = f"{verdict}{self._changed(case, got, verdict.noise)}; error {agreement.error:.0e}"
                if agreement.misread:
                    found[case.name] += f"; {agreement.misread} prompts misread"
                if not verdict.holds:
                    drops.append(self._dropped(case, got, verdict.noise))
        return " | ".join([*(found.get(name, "-") for name in names), "; ".join(dict.fromkeys(drops)) or "nothing"])

    def _changed(self, case: Case, got: list[Reply], noise: float) -> str:
        if case.name == "base" or case.model is None:
            return ""
        count = changed(self.base, case.model, self.prompts, got, noise=noise)
        return f" ({count} changed)" if count else " (**no answer changed**)"

    def _dropped(self, case: Case, got: list[Reply], noise: float) -> str:
        def agrees(other: Any) -> bool:
            return compared(other, self.prompts, got).judged(noise).holds

        if case.model is None or case.model.is_file():
            return "unexplained"
        if self.stack.name.startswith("peft"):
            # An adapter is not rounded to the base's dtype.
            whole = unrounded(self.base, case)
            if whole and agrees(reference(whole)):
                return "the rounding of what is baked"
        found = explanations(case.model, agrees)
        return " or ".join(found) or "unexplained"


if __name__ == "__main__":
    main()
