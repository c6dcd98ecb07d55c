"""Edits of several steps: what is claimed of them holds, through norms too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.helpers.families import family_config, save_family
from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.anatomy.readers import reading_of
from weight_edit.baking.bake import bake
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.kernel import Kernels
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.exactness import exactness
from weight_edit.plan.plan import EditPlan, plan_edit
from weight_edit.plan.step import EditStep
from weight_edit.runtime.loading import Model
from weight_edit.verification.leak import stream_leak

WIDTH = 64
ROWS = orthonormal_rows(np.random.default_rng(7).standard_normal((3, WIDTH)))
FIRST, SECOND = (DirectionRows(ROWS[i : i + 1], {"layer": 1}) for i in (0, 1))
OBLIQUE = DirectionRows(orthonormal_rows(ROWS[:1] + 0.4 * ROWS[1:2]), {"layer": 1})
IDS = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(5))


def plan(*steps: EditStep, family: str = "llama", embeddings: str = "both") -> EditPlan:
    model = narrow_model(family_config(family))
    anatomy = anatomy_of(model.config)
    flips = any(step.kind == "reflect" and step.at for step in steps)
    reading = reading_of(model, anatomy) if flips else None
    return plan_edit(anatomy, steps, model.get_parameter, embeddings=embeddings, reading=reading)


@pytest.mark.parametrize("family", ["llama", "gemma2", "bloom"])
@pytest.mark.parametrize("second", [SECOND, OBLIQUE], ids=["orthogonal", "oblique"])
def test_what_is_said_to_be_removed_is(family: str, second: DirectionRows, tmp_path: Path) -> None:
    # In front of a norm, directions that are orthogonal behind it are not.
    save_family(family, tmp_path / "base")
    steps = [EditStep(directions=FIRST), EditStep(directions=second)]
    if family == "bloom" and second is OBLIQUE:
        with pytest.raises(UnsupportedError, match=r"word_embeddings_layernorm.*oblique"):
            bake(tmp_path / "base", steps, tmp_path / "out")
        return
    assert bake(tmp_path / "base", steps, tmp_path / "out").complete
    gone = plan(*steps, family=family).removed
    assert len(gone) == (2 if second is SECOND else 1)
    edited = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    leak = stream_leak(Model.from_parts(edited, None), torch.from_numpy(gone).float(), IDS.tolist())
    assert leak.worst < 1e-5


def test_affine_maps_of_orthogonal_directions_go_through_a_layer_norm(tmp_path: Path) -> None:
    save_family("bloom", tmp_path / "base")
    mean = np.ones(WIDTH) / 4
    steps = [
        EditStep(
            directions=DirectionRows(found.rows, {"layer": 1}, {"baseline_mean": mean}),
            kind="affine",
            options={"enter": enter},
        )
        for found, enter in ((FIRST, "found"), (SECOND, "embedding"))
    ]
    assert bake(tmp_path / "base", steps, tmp_path / "out").complete


def test_a_norm_preserving_step_stands_alone_among_maps() -> None:
    # Its lengths are the source's, so that it would undo what a step before it did to them.
    for steps in (
        [EditStep(directions=FIRST), EditStep(directions=SECOND, kind="norm-preserving")],
        [EditStep(directions=SECOND, kind="norm-preserving")] * 2,
    ):
        with pytest.raises(UsageError, match="find all directions together"):
            plan(*steps)


EXACT = {
    "two ablations": [EditStep(directions=FIRST), EditStep(directions=SECOND)],
    "an ablation and an addition": [
        EditStep(directions=FIRST),
        EditStep(directions=SECOND, kind="add", options={"length": "unit"}, strength=0.5),
    ],
    "an ablation and a flip at a layer": [
        EditStep(directions=FIRST),
        EditStep(directions=SECOND, kind="reflect", at=(2,)),
    ],
}
KERNEL = Kernels.model_validate({"mlp": {"max": 1.0}})
DIFFERENT = {
    "a part of one": [EditStep(directions=FIRST), EditStep(directions=SECOND, strength=0.5)],
    "two that are not orthogonal": [EditStep(directions=FIRST), EditStep(directions=OBLIQUE)],
    "a flip and an addition": [
        EditStep(directions=FIRST, kind="reflect"),
        EditStep(directions=SECOND, kind="add", options={"length": "unit"}),
    ],
    "some layers": [EditStep(directions=FIRST, layers=frozenset({1}))],
    "a kernel": [EditStep(directions=FIRST, kernel=KERNEL)],
}


@pytest.mark.parametrize("name", [*EXACT, *DIFFERENT])
def test_only_what_a_second_time_changes_nothing_is_called_exact(name: str) -> None:
    exact = name in EXACT
    steps = (EXACT | DIFFERENT)[name]
    laid = plan(*steps)
    assert exactness(laid).startswith("exact" if exact else "differs")
    if laid.stream is not None and not laid.reflections:
        x = torch.randn(5, WIDTH, dtype=torch.float64)
        once = laid.stream.linear.apply(x)
        assert (torch.allclose(laid.stream.linear.apply(once), once, atol=1e-6)) == laid.stream.idempotent


def test_without_the_embedding_an_ablation_is_not_exact() -> None:
    assert exactness(plan(EditStep(directions=FIRST), embeddings="skip")).startswith("differs")


def test_nothing_is_said_to_be_gone_that_is_not() -> None:
    whole = exactness(plan(EditStep(directions=FIRST, kind="norm-preserving")))
    part = exactness(plan(EditStep(directions=FIRST, kind="norm-preserving", strength=0.5)))
    assert "nothing is left" in whole
    assert "nothing is left" not in part
    assert "holds exactly" in exactness(plan(EditStep(directions=FIRST), family="gemma2"))
    assert "holds exactly" not in exactness(plan(EditStep(directions=FIRST, strength=0.5), family="gemma2"))
