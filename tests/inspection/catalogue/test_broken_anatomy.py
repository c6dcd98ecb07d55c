"""An anatomy with one fault is caught by the proof, in every family that is proven."""

import math

import pytest

from tests.helpers.anatomy_faults import CAUGHT, NONE, Subject, faults, struck
from tests.helpers.committed_verdicts import TYPES, otherwise, there
from tests.helpers.representatives import PROVEN, REFUSED_VARIANTS
from weight_edit.errors import UnsupportedError
from weight_edit.inspection.catalogue.samples import variants
from weight_edit.inspection.catalogue.status import REFUSED
from weight_edit.proofs.architecture import MAX_LEAK

# HRM's first low-level state is one vector against a stream fifty times as long: the proof still sees it.
FAINT = {("hrm_text", "input dropped")}
SLOW = ("deepseek_v4", "falcon_mamba", "mamba2", "olmo_hybrid", "hrm_text", "kimi_linear")
# What only lies on disk in an unknown way has an anatomy.
WITHOUT = [name for name, one in TYPES.items() if one.status == REFUSED and "layout on disk" not in one.reason]
REST = [model_type for model_type in TYPES if model_type not in PROVEN]

VARIANTS = [(model_type, variant) for model_type in PROVEN for variant in variants(model_type)]


def check(model_type: str, variant: str | None = None) -> None:
    there(model_type)
    found = struck(model_type, variant)
    assert found.pop(NONE) < MAX_LEAK
    for name, leak in found.items():
        assert leak > (MAX_LEAK if (model_type, name) in FAINT else CAUGHT), name
    assert len(found) >= 4
    assert any(name.endswith("dropped") for name in found)


@pytest.mark.families
@pytest.mark.parametrize(
    "model_type", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in PROVEN]
)
def test_every_fault_is_caught(model_type: str) -> None:
    check(model_type)


@pytest.mark.families
@pytest.mark.parametrize(("model_type", "variant"), [case for case in VARIANTS if case not in REFUSED_VARIANTS])
def test_every_fault_is_caught_in_variants(model_type: str, variant: str) -> None:
    check(model_type, variant)


def test_two_norms_behind_experts_are_each_struck() -> None:
    """Gemma 4's experts are written through a norm of their own and then the block's."""
    subject = Subject.of("gemma4_text", "moe")
    assert "experts, two norms, inner norm ignored" in {name for name, _ in faults(subject.anatomy, subject.weights)}


@pytest.mark.families
@pytest.mark.slow
@pytest.mark.parametrize("model_type", REST)
def test_every_fault_is_caught_in_all_other_families_that_have_an_anatomy(model_type: str) -> None:
    if model_type not in WITHOUT:
        return check(model_type)
    there(model_type)
    try:
        Subject.of(model_type)
    except UnsupportedError:
        return None
    return otherwise(f"'{model_type}' is not refused")


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("gpt2", {"embedding dropped", "position dropped", "attention dropped", "mlp dropped", "attention bias left"}),
        ("gemma3", {"projector dropped", "attention rms norm ignored", "mlp rms gain off by one"}),
        ("mixtral", {"experts dropped", "experts along axis 0", "experts along axis 2"}),
        (
            "bloom",
            {"embedding layer norm ignored", "embedding layer norm's bias left", "embedding layer gain off by one"},
        ),
        ("opt", {"embedding dropped", "position dropped"}),
    ],
)
def test_every_role_and_what_stands_behind_it_is_struck(model_type: str, expected: set[str]) -> None:
    subject = Subject.of(model_type)
    assert expected <= {name for name, _ in faults(subject.anatomy, subject.weights)}


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "qwen2_moe", "mistral3", "deepseek_v3"])
def test_wrong_axes_of_the_right_length_are_among_the_faults(model_type: str) -> None:
    """Where every other axis has another length, the edit of a wrong one is impossible, which would prove little."""
    found = struck(model_type)
    assert [name for name, leak in found.items() if "axis" in name and math.isfinite(leak)]
