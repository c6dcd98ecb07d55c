"""A proven anatomy survives JSON exactly, and nothing else is taken for one."""

import copy
import json
from typing import Any

import pytest

from tests.helpers.families import FAMILIES, KINDS, family_config
from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.disk.layout import Layout, Run
from weight_edit.proofs.record import AblationProof, ProvenAnatomy

LAYOUT = Layout(
    parameters={
        "norm.weight": (Run("norm.weight", None, 1, "", (0,)),),
        "experts": (Run("experts.", 0, 384, ".w2.weight", (None, 0, 1)),),
    },
    how={"experts": "MergeModulelist"},
    missing={"lost": "an error"},
    mismatched={"norm.weight": (65,)},
    clashes=(("a", "b"),),
    extra=("c",),
)


def proven(family: str) -> ProvenAnatomy:
    return ProvenAnatomy(anatomy_of(family_config(family)), AblationProof(1.25e-7, 0.1 + 0.2, 1e-310, 10, 40), LAYOUT)


@pytest.mark.parametrize("family", FAMILIES + KINDS)
def test_the_round_trip_is_exact(family: str) -> None:
    found = proven(family)
    again = ProvenAnatomy.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    assert again.to_dict() == found.to_dict()


def changed(path: str, value: Any) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(json.dumps(proven("gemma2").to_dict()))
    *parents, last = path.split(".")
    place: Any = entry
    for name in parents:
        place = place[int(name) if name.isdecimal() else name]
    place[last] = copy.deepcopy(value)
    return entry


BAD = [
    ("anatomy.d_model", "64"),
    ("anatomy.d_model", True),
    ("anatomy.tied", 1),
    ("anatomy.unknown", 1),
    ("anatomy.blocks", {}),
    ("anatomy.blocks.1.writers", [None]),
    ("anatomy.blocks.1.writers.0.norm.kind", None),
    ("anatomy.embeddings.0.axis", 1.0),
    ("anatomy.shapes", [["a", 1]]),
    ("anatomy.shapes", {"a": 1}),
    ("layout.parameters.experts.0.axes", [0.5]),
    ("layout.parameters.experts.0.first", "0"),
    ("layout.parameters.experts", None),
    ("layout", {}),
    ("proof.leak", None),
    ("proof", {"leak": 1.0}),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_anything_else_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ValueError):
        ProvenAnatomy.from_dict(changed(path, value))


@pytest.mark.parametrize("value", [None, [], "x", 3, {}])
def test_what_is_no_record_at_all_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        ProvenAnatomy.from_dict(value)
