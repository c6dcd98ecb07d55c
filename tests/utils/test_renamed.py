"""Arguments are taken by their earlier names, and the warning says the present one."""

import inspect

import numpy as np
import pytest

import weight_edit
from weight_edit import SelectionRule, evaluate, find_directions, generate
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.plan.step import EditStep
from weight_edit.utils.renamed import renamed_arguments, renamed_values

ROWS = DirectionRows(np.eye(1, 8, dtype=np.float32), {})


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


@renamed_values
def write(*, embeddings: str = "both", mtp: str = "skip", projector: str = "edit") -> tuple[str, str, str]:
    """Write."""
    return embeddings, mtp, projector


def test_an_earlier_word_is_taken_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r'write\(embeddings="keep"\) is "both" now'):
        assert write(embeddings="keep", mtp="edit") == ("both", "edit", "edit")
    with pytest.warns(DeprecationWarning, match=r'write\(projector="keep"\) is "skip" now'):
        assert write(projector="keep") == ("both", "skip", "skip")


@pytest.mark.parametrize(
    ("made", "present"),
    [
        (lambda: SelectionRule(by="cosmic"), SelectionRule(select="cosmic")),
        (lambda: EditStep(directions=ROWS, edit="reflect").kind, "reflect"),
    ],
)
def test_records_are_made_with_fields_by_their_earlier_names(made, present) -> None:
    with pytest.warns(DeprecationWarning, match=r"(SelectionRule\(by|EditStep\(edit)=...\) is called"):
        assert made() == present


@pytest.mark.parametrize(("verb", "name"), [(weight_edit.bake, "edit"), (weight_edit.adapter, "edit_options")])
def test_the_kind_of_an_edit_by_its_earlier_name(verb, name) -> None:
    with pytest.warns(DeprecationWarning, match="is called"), pytest.raises(TypeError):
        verb(**{name: {}})


def test_a_verification_by_its_earlier_limit() -> None:
    with pytest.warns(DeprecationWarning, match="is called limit now"), pytest.raises(TypeError):
        weight_edit.verify(n_prompts=2)


def test_the_warning_is_at_the_callers_line() -> None:
    with pytest.warns(DeprecationWarning, match='is called|is "both" now') as caught, pytest.raises(TypeError):
        weight_edit.bake(edit="add", embeddings="keep")
    assert {warning.filename for warning in caught} == {__file__}
