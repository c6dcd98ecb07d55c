"""A representative third of the catalogue through the disk: proven, or refused with the reason expected."""

import pytest
from representatives import PROVEN, REFUSED

from weight_edit.catalogue.entries import Entry, entries
from weight_edit.catalogue.facts import KINDS
from weight_edit.catalogue.trial import Trial, attempt
from weight_edit.proof import MAX_LEAK, MAX_LOGIT_DIFFERENCE

ENTRIES = {entry.model_type: entry for entry in entries()}
SLOW = ("molmo2",)
PASSED: dict[str, Trial] = {}


@pytest.mark.parametrize(
    "model_type", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in PROVEN]
)
def test_a_family_is_complete_on_disk_and_hooks_agree(model_type: str) -> None:
    trial = attempt(ENTRIES[model_type])
    assert trial.status == "proven", trial.reason
    assert trial.leak is not None
    assert trial.leak_before is not None
    assert trial.logit_difference is not None
    assert trial.leak < MAX_LEAK
    assert trial.leak_before > 0.05, "the directions must be there for their absence to mean anything"
    assert trial.logit_difference < MAX_LOGIT_DIFFERENCE
    assert trial.points > 2
    assert trial.writers
    assert set(trial.kinds) <= set(KINDS)
    PASSED[model_type] = trial


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_family_is_refused_with_its_reason(model_type: str) -> None:
    trial = attempt(ENTRIES[model_type])
    assert trial.status == "refused"
    assert REFUSED[model_type] in trial.reason
    assert "\n" not in trial.reason
    assert trial.leak is None


def test_every_kind_of_structure_occurs_in_several_families() -> None:
    if len(PASSED) < 80:
        pytest.skip("asks what the tests above found, when all of them have run")
    counts = {kind: sum(kind in trial.kinds for trial in PASSED.values()) for kind in KINDS}
    assert min(counts.values()) >= 2, counts


def test_they_are_a_third() -> None:
    assert len(set(PROVEN) | set(REFUSED)) == len(PROVEN) + len(REFUSED)
    assert 3 * (len(PROVEN) + len(REFUSED)) >= len(ENTRIES)
    assert set(PROVEN) | set(REFUSED) <= set(ENTRIES)


def test_a_type_that_is_in_no_mapping_fails_in_a_sentence() -> None:
    trial = attempt(Entry("nonesuch", "NonesuchForCausalLM", ("text",)))
    assert (trial.status, trial.reason) == ("failed", "transformers has no model type 'nonesuch'")
