"""Every inference stack loads a base and its edits, and answers as transformers does (`make stacks`)."""

from pathlib import Path

import pytest
import torch
from stacks.cases import Case, cases
from stacks.comparison import agreement
from stacks.environment import Stack, stacks
from stacks.replies import Asked, Prompts, Reply, StackError, replies
from stacks.small_models import PRE_TOKENIZER, small_model
from stacks.suspects import reference
from transformers import AutoTokenizer

TEXTS = ("A short story about a", "How do I sharpen a pencil?", "Water is")
NEW_TOKENS = 12
ENDS = {2}

OTHERS = [name for name, each in stacks().items() if not each.of_package]
HOLD = {
    # Family -> what does not hold there, by stack and edit: docs/stacks.md says what each drops.
    "Llama": {("mistralrs", "addition")},
    "Qwen2": set(),
    "Gemma 3": set(),
}


# Qwen2 takes no addition, and is tied as Gemma 3 is: what CI runs leaves it out.
@pytest.fixture(
    scope="module", params=[pytest.param(each, marks=[pytest.mark.stacks] if each == "Qwen2" else []) for each in HOLD]
)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def made(family: str, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    work = tmp_path_factory.mktemp("stacks")
    return cases(small_model(family, work / "base"), work / "edits")


UNSUPPORTED = {("mistralrs", "Gemma 3"): "Gemma3ForCausalLM"}
"""Stack and family -> what the stack says, which runs no such base either."""


def prompts(folder: Path) -> Prompts:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    return Prompts(texts=TEXTS, ids=ids, new_tokens=NEW_TOKENS, pre_tokenizer=PRE_TOKENIZER)


def held(stack: Stack, family: str, made: list[Case]) -> None:
    """Assert that base and edits answer as transformers does, within the noise of the base."""
    asked = prompts(made[0].folder)
    there = [each for each in made if each.folder and (stack.name, each.name) not in HOLD[family]]
    found = replies(stack, [Asked(each.folder) for each in there], asked)
    noise = None
    if (stack.name, family) in UNSUPPORTED:
        assert all(UNSUPPORTED[stack.name, family] in str(said) for said in found)
        return
    for case, said in zip(there, found, strict=True):
        assert not isinstance(said, StackError), f"{case.name}: {said}"
        compared = agreement(reference(case.folder), asked.ids, said, ends=ENDS, new_tokens=NEW_TOKENS)
        noise = compared.noise if noise is None else noise
        assert compared.places >= NEW_TOKENS
        assert compared.holds(noise), f"{stack.name}, {case.name}: {compared.verdict(noise)}"


@pytest.mark.stacks
@pytest.mark.parametrize("name", OTHERS)
def test_a_stack_answers_as_transformers_does(name: str, family: str, made: list[Case]) -> None:
    stack = stacks()[name]
    if not stack.is_installed():
        pytest.skip(f"{stack.title} is not installed: make stacks STACKS={name}")
    held(stack, family, made)


def answers(model: torch.nn.Module, ids: list[list[int]]) -> list[Reply]:
    """Greedy tokens, and the two most probable ones at each place."""
    said = []
    for prompt in ids:
        tokens, top = [], []
        for _ in range(NEW_TOKENS):
            with torch.no_grad():
                row = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].double().log_softmax(-1)
            best = row.topk(2)
            top.append(list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
            tokens.append(top[-1][0][0])
        said.append(Reply(tokens=tokens, top=top))
    return said


@pytest.mark.parametrize("merged", [False, True], ids=["unmerged", "merged"])
def test_peft_answers_as_the_baked_folder(merged: bool, family: str, made: list[Case]) -> None:
    from peft import PeftModel

    asked = prompts(made[0].folder)
    base = agreement(
        reference(made[0].folder),
        asked.ids,
        answers(reference(made[0].folder), asked.ids),
        ends=ENDS,
        new_tokens=NEW_TOKENS,
    )
    compared = 0
    for case in made[1:]:
        if case.adapter is None or case.folder is None or (case.when_merged and not merged):
            continue
        loaded = PeftModel.from_pretrained(reference(made[0].folder), case.adapter)
        if merged and case.name == "addition":
            with pytest.raises(RuntimeError, match="the base layer has no bias"):
                loaded.merge_and_unload()
            continue
        said = answers(loaded.merge_and_unload() if merged else loaded, asked.ids)
        baked = reference(case.folder)
        found = agreement(baked, asked.ids, said, ends=ENDS, new_tokens=NEW_TOKENS)
        assert found.holds(base.noise), f"{case.name}: {found.verdict(base.noise)}"
        # The adapter is summed in float32, the bake in float64.
        assert found.noise < 1e-4
        plain = agreement(reference(made[0].folder), asked.ids, said, ends=ENDS, new_tokens=NEW_TOKENS)
        assert not plain.holds(base.noise), "the edit changes no answer"
        compared += 1
    assert compared
