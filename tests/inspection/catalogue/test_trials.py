"""A representative third of the catalogue through the disk: proven, or refused with the reason expected."""

from dataclasses import replace

import pytest

from tests.helpers.committed_verdicts import TYPES, otherwise, there
from tests.helpers.representatives import PROVEN, REFUSED, REFUSED_VARIANTS
from weight_edit.anatomy.narrow.tower_data import MODELS
from weight_edit.inspection.catalogue.entries import Entry, with_variants
from weight_edit.inspection.catalogue.facts import KINDS
from weight_edit.inspection.catalogue.status import PROVEN as IS_PROVEN
from weight_edit.inspection.catalogue.trial import Trial, attempt
from weight_edit.proofs.architecture import MAX_LEAK, MAX_LOGIT_DIFFERENCE

ENTRIES = {model_type: verdict.entry for model_type, verdict in TYPES.items()}
CASES = {
    case.label: case
    for model_type in PROVEN
    for case in with_variants(ENTRIES[model_type])
    if (model_type, case.variant) not in REFUSED_VARIANTS
}
SLOW = ("molmo2",)
# Kinds that only one family of transformers has today, or none that is proven; and one that samples never have.
RARE = {
    "LayerNorm behind writers",
    "gain behind writers",
    "several streams",
    "writers used by several blocks",
    "layers that transformers does not load",
}
PASSED: dict[str, Trial] = {}


@pytest.mark.families
@pytest.mark.parametrize("label", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in CASES])
def test_a_family_is_complete_on_disk_and_hooks_agree(label: str) -> None:
    there(CASES[label].model_type)
    trial = attempt(CASES[label])
    assert trial.status == "proven", trial.reason
    assert trial.label == label
    assert trial.leak is not None
    assert trial.leak_before is not None
    assert trial.logit_difference is not None
    assert trial.leak < MAX_LEAK
    assert trial.leak_before > 0.05, "the directions must be there for their absence to mean anything"
    assert trial.logit_difference < MAX_LOGIT_DIFFERENCE
    assert trial.points > 2
    assert trial.writers
    assert set(trial.kinds) <= set(KINDS)
    PASSED[label] = trial


@pytest.mark.families
@pytest.mark.parametrize(
    ("model_type", "variant", "reason"),
    [(one, None, reason) for one, reason in REFUSED.items()]
    + [(*one, reason) for one, reason in REFUSED_VARIANTS.items()],
)
def test_a_family_is_refused_with_its_reason(model_type: str, variant: str | None, reason: str) -> None:
    there(model_type)
    trial = attempt(replace(ENTRIES[model_type], variant=variant))
    if trial.status == IS_PROVEN:
        otherwise(f"'{model_type}' is proven")
    assert trial.status == "refused"
    assert reason in trial.reason
    assert "\n" not in trial.reason
    assert trial.leak is None


def test_every_kind_of_structure_occurs_in_several_families() -> None:
    if len(PASSED) < 80:
        pytest.skip("asks what the tests above found, when all of them have run")
    counts = {kind: sum(kind in trial.kinds for trial in PASSED.values()) for kind in KINDS if kind not in RARE}
    assert min(counts.values()) >= 2, counts


def test_they_are_a_third() -> None:
    assert len(set(PROVEN) | set(REFUSED)) == len(PROVEN) + len(REFUSED)
    assert 3 * (len(PROVEN) + len(REFUSED)) >= len(ENTRIES)
    assert set(PROVEN) | set(REFUSED) <= set(ENTRIES)


def test_a_narrow_config_that_transformers_checks_refuse_fails_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs are checked as they are saved: a narrow one whose parts do not fit was the end of the whole process."""
    monkeypatch.delitem(MODELS, "apertus1p5")
    there("apertus1p5")
    trial = attempt(ENTRIES["apertus1p5"])
    assert trial.status == "failed"
    assert "The visual token range must end where the audio token range begins" in trial.reason


def test_a_type_that_is_in_no_mapping_fails_in_a_sentence() -> None:
    trial = attempt(Entry("nonesuch", "NonesuchForCausalLM", ("text",)))
    assert (trial.status, trial.reason) == ("failed", "transformers has no model type 'nonesuch'")
