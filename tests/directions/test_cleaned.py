"""The difference in means less concept atoms (arXiv 2601.08489)."""

import numpy as np
import pytest
import torch

from tests.helpers.direction_samples import problem_of, sample
from tests.helpers.organism_behaviour import organism_set, share_refused
from weight_edit.directions.find import find_directions
from weight_edit.directions.finders.cleaned import residualised
from weight_edit.directions.registry import finder_named
from weight_edit.errors import UsageError
from weight_edit.prompts.atoms.atoms import NEUTRAL, atom_names
from weight_edit.prompts.load import load_prompts

TARGET = [[5, 6, 7, 8], [5, 7, 9, 8], [6, 6, 9, 8]]
BASELINE = [[14, 15, 16, 8], [17, 15, 18, 8], [14, 19, 16, 8]]
SPARED = [[21, 22, 16, 8], [23, 15, 24, 8]]


@pytest.mark.parametrize("ridge", [0.5, 0.01, 0.0])
def test_the_formula_literally(ridge):
    generator = torch.Generator().manual_seed(1)
    r, atoms = torch.randn(6, generator=generator), torch.randn(3, 6, generator=generator) * 7
    a = (atoms / atoms.norm(dim=-1, keepdim=True)).double().numpy()
    expected = r.double().numpy() - a.T @ np.linalg.inv(a @ a.T + ridge * np.eye(3)) @ a @ r.double().numpy()
    torch.testing.assert_close(residualised(r, atoms, ridge), torch.from_numpy(expected))
    doubled = torch.cat([atoms, atoms[:1] * 2, torch.zeros(1, 6)])
    if ridge == 0:
        torch.testing.assert_close(residualised(r, doubled, 0.0), torch.from_numpy(expected))
        assert not residualised(atoms.sum(0), atoms, 0.0).any()
    torch.testing.assert_close(residualised(r, torch.zeros(2, 6), ridge), r.double())


def test_a_ridge_of_one_takes_half_of_a_single_atoms_part():
    left = residualised(torch.tensor([2.0, 3.0]), torch.tensor([[5.0, 0.0]]), 1.0)
    assert left.tolist() == pytest.approx([1.0, 3.0])


def test_atoms_are_means_of_protected_sets_and_of_built_in_prompts(small_model):
    model = small_model("llama")
    given = problem_of(model, TARGET, BASELINE, [-2, -1], protected=(sample("protected", SPARED),))
    found = finder_named("cleaned")(given, {"ridge": 0.1, "atoms": ["code", "format"]})[5]
    assert (found.position, found.layer) == (-1, 1)

    def mean(ids):
        return given.activations(ids)[:, 1, 1].double().mean(0)

    encoded = {name: mean(given.encode(load_prompts(f"atoms:{name}"))) for name in ("code", "format", NEUTRAL)}
    r, base = mean(TARGET) - mean(BASELINE), mean(BASELINE)
    atoms = [mean(SPARED) - base, encoded["code"] - encoded[NEUTRAL], encoded["format"] - encoded[NEUTRAL]]
    expected = residualised(r, torch.stack(atoms), 0.1)
    torch.testing.assert_close(found.vector, expected, atol=1e-5, rtol=1e-4)
    assert list(found.facts["overlap"]) == ["protected protected", "atoms:code", "atoms:format"]
    cosines = [float(r @ atom / r.norm() / atom.norm()) for atom in atoms]
    assert list(found.facts["overlap"].values()) == pytest.approx(cosines, abs=1e-5)
    assert found.facts["removed"] == pytest.approx(float((r - expected).norm() / r.norm()), abs=1e-5)


def test_what_cannot_be_cleaned_is_refused(small_model):
    given = problem_of(small_model("llama"), TARGET, BASELINE, [-1])
    with pytest.raises(UsageError, match="nothing was named"):
        finder_named("cleaned")(given, {"atoms": "none"})
    with pytest.raises(UsageError, match=r"no set of atoms 'maths'; did you mean 'mathematics'\?"):
        finder_named("cleaned")(given, {"atoms": ["maths"]})
    found = finder_named("cleaned")(given, {"atoms": "all"})[-1]
    assert list(found.facts["overlap"]) == [f"atoms:{name}" for name in atom_names()]


def test_on_the_organism_refusal_goes_and_the_protected_direction_is_spared(organism):
    spared = [organism_set(f"answered-{kind}") for kind in ("cooking", "office")]
    found = find_directions(
        organism,
        organism_set("refused"),
        organism_set("answered"),
        protect=spared,
        method="cleaned",
        options={"atoms": "none", "ridge": 0.0},
    )
    assert share_refused(organism, "refused", found) < 0.1
    assert share_refused(organism, "answered", found) < 0.05
    assert 0 < found.metadata["facts"]["removed"] < 0.5
    assert set(found.metadata["facts"]["overlap"]) == {f"protected {some.name}" for some in spared}
