"""Every inference stack loads a base and its edits, and answers as transformers does (`make stacks`)."""

from pathlib import Path

import pytest
import torch
from stacks.cases import Case, cases
from stacks.environment import Stack, stacks
from stacks.judging import changed, compared, judged
from stacks.replies import Asked, Prompts, Reply, StackError, absence, replies
from stacks.small_models import PRE_TOKENIZER, small_model
from stacks.suspects import reference
from transformers import AutoTokenizer

TEXTS = ("A short story about a", "How do I sharpen a pencil?", "Water is")
MORE_TEXTS = (
    *TEXTS,
    "The capital of France is",
    "Name three colours.",
    "Once upon a time",
    "My favourite fruit is",
    "Why is the sky blue?",
    "A list of animals:",
    "Two plus two is",
    "The garden was",
    "In the morning I",
)
"""For families whose small model says nearly the same to everything, so that an edit shows in some answers alone."""
NEW_TOKENS = 12

OTHERS = [name for name, each in stacks().items() if not each.of_package]
DROPPED = {
    # Family -> what does not hold there, by stack and edit: docs/stacks.md says what each drops.
    "Llama": {("mistralrs", "addition")},
    "Qwen2": set(),
    "Gemma 3": set(),
}


# Qwen2 takes no addition, and is tied as Gemma 3 is: what CI runs leaves it out.
@pytest.fixture(
    scope="module",
    params=[pytest.param(each, marks=[pytest.mark.stacks] if each == "Qwen2" else []) for each in DROPPED],
)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def made(family: str, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    work = tmp_path_factory.mktemp("stacks")
    return cases(small_model(family, work / "base"), work / "edits")


ADAPTERS = {
    # Family, merged -> the edits of which there is an adapter that is the edit then.
    ("Llama", False): {"ablation", "addition"},
    ("Llama", True): {"ablation", "addition"},
    ("Qwen2", False): {"ablation, untied"},
    ("Qwen2", True): {"ablation", "ablation, untied"},
    ("Gemma 3", False): {"ablation, untied"},
    ("Gemma 3", True): {"ablation", "ablation, untied"},
}

OTHER_MODEL = {("llama-cpp", "Gemma 3"), ("ctranslate2", "Gemma 3")}
"""Stack and family whose base is another model there: in so few tokens it may not show; `stacks_table.py` tells."""

UNSUPPORTED = {("mistralrs", "Gemma 3"): "Gemma3ForCausalLM"}
"""Stack and family -> what the stack says, which runs no such base either."""


def prompts(folder: Path, texts: tuple[str, ...] = TEXTS) -> Prompts:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return Prompts(texts=texts, ids=ids, new_tokens=NEW_TOKENS, pre_tokenizer=PRE_TOKENIZER)


def held(stack: Stack, family: str, made: list[Case]) -> None:
    """Assert that base and edits answer as transformers does, and that what is listed as dropped is."""
    asked = prompts(made[0].model, MORE_TEXTS if family == "Gemma 3" else TEXTS)
    there = [each for each in made if each.model]
    found = replies(stack, [Asked(each.model) for each in there], asked)
    if (stack.name, family) in UNSUPPORTED:
        assert all(UNSUPPORTED[stack.name, family] in str(said) for said in found)
        return
    for case, said in zip(there, found, strict=True):
        assert not isinstance(said, StackError), f"{case.name}: {said}"
        agreement = compared(reference(case.model), asked, said)
        verdict = judged(agreement, stack, case.model, asked, said)
        assert all(reply.tokens for reply in said)
        if (stack.name, family) in OTHER_MODEL:
            continue
        assert verdict.holds == ((stack.name, case.name) not in DROPPED[family]), (
            f"{stack.name}, {case.name}: {verdict}"
        )
        if case is not there[0]:
            assert changed(there[0].model, case.model, asked, said, noise=verdict.noise) > NEW_TOKENS, (
                "the edit changes too little to be seen"
            )


@pytest.mark.stacks
@pytest.mark.parametrize("name", OTHERS)
def test_a_stack_answers_as_transformers_does(name: str, family: str, made: list[Case]) -> None:
    stack = stacks()[name]
    if reason := absence(stack):
        pytest.skip(f"{stack.title} is not installed ({reason}): make stacks STACKS={name}")
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

    stack, asked = stacks()["peft-merged" if merged else "peft"], prompts(made[0].model)
    base_model = reference(made[0].model)
    there = [case for case in made[1:] if case.adapter and case.model and (merged or not case.when_merged)]
    assert {case.name for case in there} == ADAPTERS[family, merged]
    for case in there:
        loaded = PeftModel.from_pretrained(reference(made[0].model), case.adapter)
        if merged and case.name == "addition":
            with pytest.raises(RuntimeError, match="the base layer has no bias"):
                loaded.merge_and_unload()
            continue
        said = answers(loaded.merge_and_unload() if merged else loaded, asked.ids)
        found = compared(reference(case.model), asked, said)
        verdict = judged(found, stack, case.model, asked, said)
        assert verdict.holds, f"{case.name}: {verdict}"
        # The adapter is summed in float32, the bake in float64.
        assert found.error < 1e-4
        # The base answers otherwise: an adapter without effect would be seen.
        assert not judged(compared(base_model, asked, said), stack, made[0].model, asked, said).holds
