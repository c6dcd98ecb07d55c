"""The edit of a chat saved as a recipe: what it bakes says what the chat said."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from tests.helpers.chat_replies import PROMPT, texts
from weight_edit.baking.bake import bake
from weight_edit.chat.edit_recipe import save_edit
from weight_edit.chat.opening import open_chat
from weight_edit.chat.sampling import Sampling
from weight_edit.directions.directions import load_directions
from weight_edit.errors import UsageError
from weight_edit.prompts.chat import ChatFormat
from weight_edit.recipe.recipe import load_recipe
from weight_edit.runs.given_directions import given_directions
from weight_edit.runs.recipe_edit import recipe_edit
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.loading import load
from weight_edit.runtime.points import Point
from weight_edit.studies.lab import edit_step


@pytest.fixture
def directions(tmp_path: Path) -> Path:
    """Two directions that matter to the prompt."""
    # The stream's own at the end of the prompt: without it the model says something else.
    organism = load("organism")
    sequence = ChatFormat(organism.tokenizer).encode(PROMPT)
    stream = residuals(organism, [sequence], [Point("resid_pre", 3)], [-1, -2], description=None)
    rows = np.linalg.qr(stream.reshape(2, 128).numpy().T)[0].T
    path = tmp_path / "d.safetensors"
    save_file({"direction": np.ascontiguousarray(rows, np.float32)}, path)
    return path


@pytest.mark.parametrize(
    "edit",
    [
        {"strength": 1.9, "layers": "0-3,5"},
        {"kind": "reflect", "at": [3]},
    ],
    ids=["ablate", "reflect"],
)
def test_the_recipe_bakes_what_was_tried(edit: dict[str, object], directions: Path, tmp_path: Path) -> None:
    chat = open_chat("organism", directions=directions, sampling=Sampling(max_new_tokens=14), **edit)
    said = texts(chat.reply(PROMPT))
    file = tmp_path / "recipe.yaml"
    assert save_edit(chat, file) == [file]
    with pytest.raises(UsageError, match="exists"):
        save_edit(chat, file)
    save_edit(chat, file, overwrite=True)
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text("services: {}\n")
    with pytest.raises(UsageError, match="not ours to overwrite"):
        save_edit(chat, theirs, overwrite=True)
    assert theirs.read_text() == "services: {}\n"

    recipe = load_recipe(file)
    given = given_directions(recipe)["main"]
    assert recipe.edit is not None
    steps = [edit_step(each, given) for each in recipe.edit.steps]
    bake(recipe.model, steps, tmp_path / "baked", **recipe.edit.how)
    made = open_chat(tmp_path / "baked", sampling=Sampling(max_new_tokens=14))
    assert texts(made.reply(PROMPT))[0] == said[1] != said[0]


def test_large_directions_lie_beside_the_recipe(
    directions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weight_edit.directions.recipe_entry.LARGEST_INLINE", 100)
    chat = open_chat("organism", directions=directions, alone=True)
    file = tmp_path / "recipe.yml"
    files = save_edit(chat, file)
    assert files == [file, tmp_path / "recipe.safetensors"]
    np.testing.assert_array_equal(load_directions(files[1]).rows.rows, chat.edit.directions.rows)
    file.unlink()
    with pytest.raises(UsageError, match="exists"):
        save_edit(chat, file)
    assert not file.exists()


def test_what_is_no_edit_is_not_saved(directions: Path, tmp_path: Path) -> None:
    chat = open_chat("organism", directions=directions, strength=0.0)
    with pytest.raises(UsageError, match="strength is 0"):
        save_edit(chat, tmp_path / "recipe.yaml")
    with pytest.raises(UsageError, match=r"ends in \.yaml"):
        save_edit(chat, tmp_path / "recipe.txt")
    with pytest.raises(UsageError, match="no edit under trial"):
        save_edit(open_chat("organism"), tmp_path / "recipe.yaml")
    assert list(tmp_path.iterdir()) == [directions]


def test_the_edit_of_a_recipe_is_tried_and_says_what_it_bakes(directions: Path, tmp_path: Path) -> None:
    file, again = tmp_path / "recipe.yaml", tmp_path / "again.yaml"
    save_edit(open_chat("organism", directions=directions, strength=1.9), file)
    content = yaml.safe_load(file.read_text())
    content["edit"]["kernel"] = {"attention": [1.0, 1.0, 1.0, 0.9, 0.9, 0.9], "mlp": [1.0] * 6, "embedding": 0.5}
    file.write_text(yaml.safe_dump(content))
    step = recipe_edit(file)
    chat = open_chat("organism", edit_step=step, sampling=Sampling(max_new_tokens=14))
    said = texts(chat.reply(PROMPT))
    bake("organism", [step], tmp_path / "baked")
    made = open_chat(tmp_path / "baked", sampling=Sampling(max_new_tokens=14))
    assert texts(made.reply(PROMPT))[0] == said[1] != said[0]

    weaker = open_chat("organism", edit_step=step, strength=0.5)
    save_edit(weaker, again)
    saved = recipe_edit(again)
    assert (saved.strength, saved.kernel) == (0.95, step.kernel)


def test_of_a_recipe_one_edit_with_its_directions_is_tried(directions: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    save_edit(open_chat("organism", directions=directions), file)
    content = yaml.safe_load(file.read_text())
    for changed, said in (
        ({"edit": {"kind": "ablate", "then": [{"kind": "ablate"}]}}, "2 edits"),
        ({"directions": {}, "find": {"target": "a.txt", "baseline": "b.txt"}}, "finds its directions"),
    ):
        file.write_text(yaml.safe_dump({**content, **changed}))
        with pytest.raises(UsageError, match=said):
            recipe_edit(file)
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="whole"):
        open_chat("organism", edit_step=recipe_edit(file), layers="1-2")
