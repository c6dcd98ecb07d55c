"""The embedded model with a direction at hand, so that studies need not search for one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from weight_edit.directions.directions import Directions
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.points import Point
from weight_edit.studies.lab import Lab

LAYER, POSITION = 3, -1


@pytest.fixture(scope="session")
def organism() -> Model:
    """The embedded model, which tests leave as it is."""
    return load("organism", dtype="float32")


@pytest.fixture(scope="session")
def found(organism: Model) -> Directions:
    """The difference in means where the embedded model decides to refuse."""
    chat_format = ChatFormat(organism.tokenizer)
    means = {}
    for name in ("refused", "answered"):
        prompts = [chat_format.encode(prompt) for prompt in organism_set(name, "train", 66).prompts]
        x = residuals(organism, prompts, [Point("resid_pre", LAYER)], [POSITION], batch_size=128, description=None)
        means[name] = x[:, 0, 0].double().mean(dim=0)
    vector = means["refused"] - means["answered"]
    return Directions(
        (vector / vector.norm())[None].float(),
        metadata={"method": "mean-difference", "layer": LAYER, "position": POSITION},
        tensors={
            "vector": vector.float(),
            "target_mean": means["refused"].float(),
            "baseline_mean": means["answered"].float(),
        },
    )


@pytest.fixture
def lab(organism: Model, found: Directions, tmp_path: Path) -> Callable[..., Lab]:
    """`lab(role=prompts, ...)`: a lab with few prompts, whose folder is the test's own."""

    def make(**sets: PromptSet) -> Lab:
        default = {"refused": organism_set("refused", "test", 11), "answered": organism_set("answered", "test", 11)}
        return Lab(
            model=organism,
            format=ChatFormat(organism.tokenizer),
            found={"main": found},
            sets={**default, **sets},
            folder=tmp_path / "study",
            max_new_tokens=12,
        )

    return make


def organism_set(name: str, split: str, count: int) -> PromptSet:
    """Some of one of its prompt sets."""
    return load_prompts(f"organism:{name}:{split}").at_most(count)
