"""Directions from a self-organising map of the target prompts (arXiv 2511.08379)."""

import pytest
import torch

from tests.helpers.direction_samples import problem_of
from tests.helpers.organism_behaviour import organism_set, share_refused
from weight_edit.directions.find import find_directions
from weight_edit.directions.finders import som
from weight_edit.directions.finders.som import (
    SomOptions,
    chosen_greedily,
    hexagonal,
    nearest_neurons,
    self_organising_map,
)


def clusters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9], [-9, -9, 0]])
    return centres, torch.cat([centre + 0.3 * torch.randn(20, 3, generator=generator) for centre in centres])


def test_neighbours_on_the_grid_are_one_apart():
    apart = torch.cdist(hexagonal(4, 4), hexagonal(4, 4))
    neighbours = (apart - 1).abs() < 1e-9
    assert apart[apart > 0].min() == pytest.approx(1.0)
    assert neighbours.sum(dim=1).max() == 6
    assert int(neighbours[5].sum()) == 6


def test_a_map_covers_its_data_and_keeps_neighbours_near():
    centres, x = clusters()
    neurons = self_organising_map(x, 4, 4, seed=0)
    assert neurons.shape == (16, 3)
    assert neurons.dtype == torch.float64
    assert torch.cdist(centres.double(), neurons).min(dim=1).values.max() < 0.5
    apart, grid = torch.cdist(neurons, neurons), torch.cdist(hexagonal(4, 4), hexagonal(4, 4))
    assert apart[(grid - 1).abs() < 1e-9].mean() < 0.7 * apart[grid > 2].mean()
    assert torch.equal(neurons, self_organising_map(x, 4, 4, seed=0))
    assert nearest_neurons(neurons, neurons).tolist() == list(range(16))


def test_a_map_of_one_neuron_is_the_mean_and_few_samples_are_enough():
    _, x = clusters()
    torch.testing.assert_close(self_organising_map(x, 1, 1, seed=3)[0], x.double().mean(dim=0))
    assert self_organising_map(x[:3], 2, 4, seed=0).isfinite().all()


def test_the_greedy_choice(small_model, monkeypatch):
    """Metric and KL of each set of directions, written down: by hand the choice is 2, then 0."""
    known = {
        (0,): (1.0, 0.0),
        (1,): (-9.0, 0.5),
        (2,): (-1.0, 0.02),
        (3,): (0.5, 0.0),
        (2, 0): (-3.0, 0.05),
        (2, 1): (-8.0, 0.3),
        (2, 3): (-2.0, 0.03),
        (2, 0, 1): (-9.0, 0.4),
        (2, 0, 3): (-2.9, 0.06),
    }
    directions = torch.eye(32, dtype=torch.float64)[:4]

    def judged(problem, spans):
        return [known[tuple(rows.argmax(dim=-1).tolist())] for rows in spans]

    monkeypatch.setattr(som, "_judged", judged)
    problem = problem_of(small_model("llama"), [[5]], [[6]], [-1])
    assert chosen_greedily(problem, directions, SomOptions()) == ([2, 0], [-1.0, -3.0])
    assert chosen_greedily(problem, directions, SomOptions(choose=1)) == ([2], [-1.0])
    assert chosen_greedily(problem, directions[:2], SomOptions(max_kl=None, choose=1)) == ([1], [-9.0])
    # Where nothing keeps the bound, what moves the baseline least is given.
    known |= {key: (metric, kl + 1) for key, (metric, kl) in known.items()}
    assert chosen_greedily(problem, directions, SomOptions(choose=1)) == ([3], [0.5])


def test_on_the_organism_several_directions_ablate_refusal(organism):
    found = find_directions(
        organism,
        organism_set("refused"),
        organism_set("answered"),
        method="som",
        options={"rows": 2, "columns": 3, "choose": 3},
        n_validation=16,
    )
    facts = found.metadata["facts"]
    assert 1 <= len(found.direction) == len(facts["neurons"]) <= 3
    assert facts["reached"] == sorted(facts["reached"], reverse=True)
    assert sum(facts["prompts"]) == found.metadata["prompts"]["target"]["train_kept"]
    assert share_refused(organism, "refused", found) < 0.1
    assert share_refused(organism, "answered", found) < 0.05
