"""Published models: what answers a base as transformers does answers its ablation so, too.

`make stacks STACK_MODELS="FOLDER..."` says which; `benchmarks/stacks_table.py` tells all that differs, with why.
"""

import os
from pathlib import Path

import pytest
from stacks.cases import EDITS, Case, cases, unrounded
from stacks.copies import with_earlier_keys
from stacks.environment import stacks
from stacks.judging import changed, compared, judged
from stacks.replies import Asked, Prompts, StackError, absence, replies
from stacks.suspects import reference
from transformers import AutoTokenizer

TEXTS = ("A short story about a", "How do I sharpen a pencil?", "Water is")
NEW_TOKENS = 12
FOLDERS = [Path(each) for each in os.environ.get("WEIGHT_EDIT_STACK_MODELS", "").split()]

pytestmark = [
    pytest.mark.stacks,
    pytest.mark.skipif(not FOLDERS, reason='no models are named: make stacks STACK_MODELS="FOLDER..."'),
]


@pytest.fixture(scope="module", params=FOLDERS, ids=[each.name for each in FOLDERS])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    work = tmp_path_factory.mktemp("published")
    base = with_earlier_keys(request.param, work / request.param.name)
    return cases(base, work / "edits", edits={"ablation": EDITS["ablation"]})


@pytest.mark.parametrize("name", list(stacks()))
def test_what_runs_a_base_runs_its_ablation(name: str, made: list[Case]) -> None:
    stack, (base, edit) = stacks()[name], made
    if reason := absence(stack):
        pytest.skip(f"{stack.title} is not installed ({reason}): make stacks STACKS={name}")
    if name == "peft" and edit.when_merged:
        pytest.skip("the adapter is this edit once it is merged")
    assert base.model
    assert edit.model
    tokenizer = AutoTokenizer.from_pretrained(base.model)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    asked = Prompts(texts=TEXTS, ids=ids, new_tokens=NEW_TOKENS)
    edited = Asked(base.model, edit.adapter) if name.startswith("peft") else Asked(edit.model)
    before, after = replies(stack, [Asked(base.model), edited], asked)
    if isinstance(before, StackError):
        pytest.skip(f"{stack.title} does not run the base: {before}")
    verdict = judged(compared(reference(base.model), asked, before), stack, base.model, asked, before)
    if not verdict.holds:
        pytest.skip(f"{stack.title} runs the base as another model: {verdict}")
    assert not isinstance(after, StackError), after
    # An adapter is not rounded to the base's dtype.
    wanted = (name.startswith("peft") and unrounded(base.model, edit)) or edit.model
    verdict = judged(compared(reference(wanted), asked, after), stack, wanted, asked, after)
    assert verdict.holds, str(verdict)
    assert changed(base.model, wanted, asked, after, noise=verdict.noise), "the edit changes nothing to be seen"
