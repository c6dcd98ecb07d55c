"""Methods that need gradients refuse a model on disk before anything is loaded or asked."""

import pytest

from weight_edit.directions.registry import finder_named, finders
from weight_edit.errors import UnsupportedError


def test_gradients_are_refused_by_name_and_others_are_not(call, tmp_path) -> None:
    with pytest.raises(UnsupportedError, match="method gradient needs gradients"):
        finder_named("rdo").check_offload(True)
    finder_named("gradient").check_offload(False)
    others = [each for each in finders().values() if each.name != "gradient"]
    assert len(others) > 5
    for each in others:
        each.check_offload(True)
    sets = ("--target", "organism:refused", "--baseline", "organism:answered", "--out", str(tmp_path / "d.safetensors"))
    result = call("find", "organism", *sets, "--offload", "--method", "gradient")
    assert result.code == 3
    assert "method gradient needs gradients, and so the model in memory; leave --offload out" in result.err
    assert not list(tmp_path.iterdir())
