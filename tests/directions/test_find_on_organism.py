"""On the embedded model: the choice agrees with the paper's scores computed literally, and the direction acts."""

import pytest
import torch

from tests.helpers.literal_scores import literal_scores
from weight_edit.directions.find import find_directions
from weight_edit.directions.refusal_metric import refusal_metric
from weight_edit.directions.scores import CandidateScore
from weight_edit.directions.selection import SelectionRule, select
from weight_edit.directions.stages import Stages
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model, load

STAGES = {"induce": ("induce",), "kl": ("induce", "kl"), None: ("induce", "kl", "bypass")}
"""What is measured of a candidate at the least, by the stage that rejects it."""


@pytest.fixture(scope="module")
def organism() -> Model:
    return load("organism", dtype="float32")


@pytest.fixture(scope="module")
def found(organism):
    held = {
        f"validation_{role}": load_prompts(f"organism:{name}:validation")
        for role, name in (("target", "refused"), ("baseline", "answered"))
    }
    target, baseline = load_prompts("organism:refused"), load_prompts("organism:answered")
    return find_directions(organism, target, baseline, **held, n_validation=10, n_more=0, filter_prompts=False)


def test_the_choice_agrees_with_scores_computed_literally(organism, found):
    record, chat_format = found.metadata, ChatFormat(organism.tokenizer)
    held = [
        [chat_format.encode(prompt) for prompt in load_prompts(f"organism:{name}:validation").take(10, 0).prompts]
        for name in ("refused", "answered")
    ]
    tokens = [token["id"] for token in record["refusal_tokens"]]
    table, unmeasured = [], 0
    for row in record["scores"]:
        if row["rejected"] is not None and row["rejected"].startswith("layer"):
            # What may not be chosen is not scored.
            assert row["kl"] is None
            continue
        r = found.candidates[record["positions"].index(row["position"]), row["layer"]]
        if row["norm"] == 0:
            assert not r.any()
            continue
        literal = literal_scores(organism.model, r, row["layer"], *held, tokens)
        scores = dict(zip(("bypass", "induce", "kl"), literal, strict=True))
        # What a stage rejects is not measured at the next.
        told = STAGES[row["stage"]]
        assert [row[name] for name in told] == pytest.approx([scores[name] for name in told], abs=1e-4)
        unmeasured += any(row[name] is None for name in scores)
        table.append(CandidateScore(position=row["position"], layer=row["layer"], **scores, norm=row["norm"]))
    assert len(table) >= SelectionRule().layers(organism.anatomy.n_layers)
    assert unmeasured
    chosen = select(table, SelectionRule(), organism.anatomy.n_layers).chosen
    assert (chosen.position, chosen.layer) == (record["position"], record["layer"])


def test_the_direction_moves_the_metric_of_unseen_prompts(organism, found):
    chat_format = ChatFormat(organism.tokenizer)
    tokens = [token["id"] for token in found.metadata["refusal_tokens"]]
    prompts = [chat_format.encode(prompt) for prompt in load_prompts("organism:refused:test").take(60).prompts]
    before = refusal_metric(next_token_logprobs(organism, prompts), tokens)
    with hooked(organism.model, ablation_hooks(organism, found.direction)):
        after = refusal_metric(next_token_logprobs(organism, prompts), tokens)
    assert torch.mean((before > 0).double()) > 0.9
    assert torch.mean((after > 0).double()) < 0.1


def test_the_stages_come_to_what_all_scores_come_to(organism, monkeypatch):
    """The same search with every score measured first chooses, ties and leaves open the same."""
    sets = [load_prompts(f"organism:{name}:train") for name in ("refused", "answered")]
    given = {
        "n_train": 24,
        "n_validation": 8,
        "n_more": 16,
        "filter_prompts": False,
        "rule": SelectionRule(max_kl=0.02),
    }
    some = find_directions(organism, *sets, **given).metadata

    def of_all(stages, table):
        return stages._first([((name,), stages._eligible) for name in stages._of_choice], table)

    monkeypatch.setattr(Stages, "next", of_all)
    every = find_directions(organism, *sets, **given).metadata
    for name in ("layer", "position", "certainty", "confirmation", "missed"):
        assert some[name] == every[name], name
    assert some["certainty"]["measured_on_more"]
    measured = [sum(row["bypass"] is not None for row in found["scores"]) for found in (some, every)]
    assert measured[0] < measured[1]
    for one, other in zip(some["scores"], every["scores"], strict=True):
        told = [name for name in ("induce", "kl", "bypass") if one[name] is not None]
        assert [one[name] for name in told] == pytest.approx([other[name] for name in told], abs=1e-5)
        assert (one["rejected"] is None) == (other["rejected"] is None)
