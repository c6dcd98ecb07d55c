"""A search as it is asked for: the names and defaults of `find_directions`, and what is wrong said when it is read."""

import inspect
from dataclasses import MISSING, fields

import pytest

from weight_edit.directions.find import find_directions
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UsageError
from weight_edit.runtime.options import LoadOptions

SETS = {"target": "organism:refused", "baseline": "organism:answered"}


def test_its_fields_and_their_defaults_are_those_of_find_directions() -> None:
    parameters = inspect.signature(find_directions).parameters
    for field in fields(FindRequest):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        other = parameters[field.name].default
        if default is MISSING:
            assert other is inspect.Parameter.empty
        else:
            # "Nothing" is None there and an empty collection here.
            assert default == other or (not default and not other) or (default, other) == (SelectionRule(), None)
    # What it has not is how a search is kept and carried out.
    others = set(parameters) - {field.name for field in fields(FindRequest)}
    assert others == {"model", "chat_format", "batch_size", "scores", "resume", "overwrite"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"positions": "lst"}, "lst"),
        ({"seed": -1}, "out of range"),
        ({"baseline": "organism:refused"}, "differ"),
        ({"validation_target": ["organism:refused:test"] * 2}, "validation sets"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_read(changed: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        FindRequest.read(**{**SETS, **changed})


def test_options_of_a_model_show_no_token() -> None:
    assert "hf_secret" not in repr(LoadOptions(token="hf_secret"))
