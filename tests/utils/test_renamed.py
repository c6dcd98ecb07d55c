"""Arguments are taken by their earlier names, and the warning says the present one."""

import inspect

import pytest

from weight_edit import evaluate, find_directions, generate
from weight_edit.utils.renamed import renamed_arguments


@renamed_arguments(edit="kind")
def bake(model: str, *, kind: str = "ablate") -> tuple[str, str]:
    """Bake."""
    return model, kind


def test_an_earlier_name_is_taken_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r"bake\(edit=...\) is called kind now"):
        assert bake("m", edit="add") == ("m", "add")  # type: ignore[call-arg]


def test_the_present_name_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    assert bake("m", kind="add") == ("m", "add")
    assert not recwarn.list


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(TypeError, match="'kind' and 'edit'"):
        bake("m", kind="add", edit="add")  # type: ignore[call-arg]


@pytest.mark.parametrize("function", [evaluate, find_directions, generate])
def test_public_functions_take_the_chat_format_by_its_earlier_name(function) -> None:
    assert "chat_format" in inspect.signature(function).parameters
    with pytest.warns(DeprecationWarning, match="is called chat_format now"), pytest.raises(TypeError):
        function(format=None)
