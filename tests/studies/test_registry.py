"""Studies are found by name, and their settings are checked before anything runs."""

import pytest

from weight_edit.errors import UsageError
from weight_edit.studies.registry import studies, study, study_named


def test_every_study_says_what_it_is():
    known = studies()
    assert {"sweep", "compare", "geometry", "categories", "transfer", "thinking"} <= known.keys()
    assert all(each.summary.endswith(".") for each in known.values())


def test_unknown_names_and_keys_are_refused():
    with pytest.raises(UsageError, match=r"no study 'swep'.*sweep"):
        study_named("swep")
    with pytest.raises(UsageError, match=r"study sweep: 'strenghts'.*strengths"):
        study_named("sweep").settings({"strenghts": [1.0]})
    with pytest.raises(UsageError, match="'edits'"):
        study_named("compare").settings({})
    some = {"sets": {"english": "organism:refused:test"}, "edits": {"one": {}}}
    with pytest.raises(UsageError, match="'answered' has 'greek'"):
        study_named("transfer").settings({**some, "answered": {"greek": "organism:answered:test"}})


def test_prompt_sets_that_are_not_there_are_refused_before_anything_runs():
    with pytest.raises(UsageError, match="no prompt set 'refusd'"):
        study_named("transfer").settings({"sets": {"english": "organism:refusd:test"}, "edits": {"one": {}}})
    pair = {"target": "organism:fraud:train", "baseline": "there/is-none.txt"}
    with pytest.raises(UsageError, match=r"there/is-none\.txt"):
        study_named("categories").settings({"categories": {"one": pair, "two": pair}})


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="sweep"):
        study("sweep")(lambda lab, options: {})
