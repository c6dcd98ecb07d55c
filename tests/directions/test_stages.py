"""A selection in stages chooses what one of all scores chooses, with fewer passes, and says where each was rejected."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.certainty import MOST, certainty
from weight_edit.directions.scores import SCORES, CandidateScore, Similarity, score_of, with_more, with_similarity
from weight_edit.directions.selection import SelectionRule, nearest, ranked, select
from weight_edit.directions.stages import SIMILARITY, Stages

LAYERS, POSITIONS, PROMPTS = 8, (-3, -2, -1), 12


class Search:
    """Scores of candidates prompt by prompt, on drawn and on further prompts, that are told only when asked for."""

    def __init__(self, seed: int, rule: SelectionRule, *, tokens: bool = True, protected: bool = False) -> None:
        drawn = np.random.default_rng(seed)
        self.candidates, self.values, self.further, self.similar = [], [], [], []
        for position in POSITIONS:
            for layer in range(LAYERS):
                # A zero norm, nothing to add, and no numbers, now and then.
                row = torch.full((1, 4), 0.0 if drawn.random() < 0.05 else 1.0, dtype=torch.float64)
                vector = None if drawn.random() < 0.1 else row[0]
                facts = {"accuracy": float(drawn.choice([0.8, 0.9, 1.0]))}
                self.candidates.append(Candidate(position=position, layer=layer, rows=row, vector=vector, facts=facts))
                level = drawn.choice([0.02, 0.09, 0.11, 0.5])
                means = {"kl": level, "protected_kl": level / drawn.uniform(0.5, 2), "induce": drawn.normal(0.3, 1.0)}
                means["bypass"] = drawn.choice([-5.0, -4.9, -4.0, 1.0])
                if not tokens:
                    means = {name: means[name] for name in ("kl", "protected_kl")}
                if vector is None:
                    means.pop("induce", None)
                if not protected:
                    means.pop("protected_kl")
                for kept in (self.values, self.further):
                    spread = {name: (0.05 if name in ("kl", "protected_kl") else 0.6) for name in means}
                    found = {name: drawn.normal(m, spread[name], PROMPTS) for name, m in means.items()}
                    for name in ("kl", "protected_kl"):
                        if name in found:
                            found[name] = np.abs(found[name])
                    if kept is self.values and drawn.random() < 0.05:
                        found[str(drawn.choice(list(found)))][0] = np.nan
                    kept.append({name: tuple(map(float, some)) for name, some in found.items()})
                self.similar.append(Similarity(*drawn.uniform(0, 1, 2).tolist()))
        self.rule = rule
        self.stages = Stages(candidates=self.candidates, rule=rule, n_layers=LAYERS, tokens=tokens, protected=protected)
        self.known: list[set[str]] = [set() for _ in self.candidates]
        self.more: set[int] = set()
        self.passes = 0

    def tell(self, names, numbers) -> None:
        for number in numbers:
            self.passes += PROMPTS * len([name for name in names if name in SCORES])
            self.known[number] |= set(names)

    def tell_all(self) -> None:
        """Every score of what could be chosen, as a search without stages measures it."""
        below = self.rule.layers(LAYERS)
        # What adding does bounds nothing under some rules; then it is not asked, nor whether it gives numbers.
        names = [name for name in SCORES if name != "induce" or self.rule.min_induce is not None]
        names += [SIMILARITY] if self.rule.without_tokens else []
        self.tell(names, [n for n, each in enumerate(self.candidates) if each.norm and each.layer < below])

    @property
    def table(self) -> list[CandidateScore]:
        rows = []
        for number, candidate in enumerate(self.candidates):
            values = {name: some for name, some in self.values[number].items() if name in self.known[number]}
            score = score_of(candidate, values)
            score = with_more(score, self.further[number]) if number in self.more else score
            rows.append(with_similarity(score, self.similar[number] if SIMILARITY in self.known[number] else None))
        return rows

    def run(self, *, staged: bool, best_effort: bool = False):
        """Measure until the choice is made; what it comes to."""
        if not staged:
            self.tell_all()
        while True:
            stage = self.stages.next(self.table)
            assert staged or stage is None
            if stage is not None:
                self.tell(stage.names, stage.numbers)
                continue
            sure = certainty(self.table, self.rule, LAYERS, self.more)
            wanted = [n for n in sure.contenders if n not in self.more][: MOST - len(self.more)]
            self.more |= set(wanted)
            if not wanted:
                break
        table = self.table
        if best_effort and not ranked(table, self.rule, LAYERS, self.more):
            while (stage := self.stages.of_least_bad(self.table, 3)) is not None:
                assert staged
                self.tell(stage.names, stage.numbers)
            table = self.table
        chosen = select(table, self.rule, LAYERS, self.more).chosen
        place = None if chosen is None else (chosen.position, chosen.layer)
        least = nearest(table, self.rule, LAYERS)[:3] if best_effort and chosen is None else []
        return place, ranked(table, self.rule, LAYERS, self.more), sure, sorted(self.more), least


RULES = {
    "published": (SelectionRule(), {}),
    "no bounds": (SelectionRule(max_kl=None, min_induce=None, max_layer_fraction=None), {}),
    "no bound on what is induced": (SelectionRule(min_induce=None), {}),
    "strict": (SelectionRule(max_kl=0.07, min_induce=0.5), {}),
    "none can keep it": (SelectionRule(max_kl=1e-6, min_induce=5.0), {}),
    "by accuracy": (SelectionRule(select="accuracy"), {}),
    "protected": (SelectionRule(), {"protected": True}),
    "cosmic": (SelectionRule(select="cosmic"), {"tokens": False}),
    "released": (SelectionRule(select="cosmic-released"), {"tokens": False, "protected": True}),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seeds", [range(0, 6), range(6, 12)])
def test_the_outcome_is_that_of_all_scores_measured(name, seeds):
    rule, given = RULES[name]
    passes, ties, open_bounds, chosen = [0, 0], 0, 0, 0
    for seed in seeds:
        whole, some = Search(seed, rule, **given), Search(seed, rule, **given)
        expected = whole.run(staged=False, best_effort=True)
        found = some.run(staged=True, best_effort=True)
        assert found == expected
        passes[0] += some.passes
        passes[1] += whole.passes
        ties += len(found[2].ties)
        open_bounds += len(found[2].open_bounds)
        chosen += found[0] is not None
    # What is compared is not empty: some searches choose, and leave ties and open bounds.
    assert (chosen > 0) == (name != "none can keep it")
    # Also in search of the least bad, not every score of every candidate is asked for.
    assert passes[0] < passes[1]
    if name == "published":
        assert passes[0] < 0.7 * passes[1]
        assert ties
        assert open_bounds


def test_what_is_rejected_for_sure_is_asked_nothing_more():
    search = Search(0, SelectionRule())
    search.run(staged=True)
    selection = select(search.table, search.rule, LAYERS, search.more)
    for score, known in zip(search.table, search.known, strict=True):
        stage = selection.stages.get((score.position, score.layer))
        if stage == "place":
            assert known == set()
            assert score.kl is None
        elif "kl" not in known:
            assert stage == "induce"
            assert (score.kl, score.bypass) == (None, None)
        elif "bypass" not in known:
            assert stage in ("induce", "kl")
            assert score.bypass is None
    assert set(selection.stages.values()) >= {"place", "kl", "induce"}


def test_a_looser_rule_asks_for_what_is_missing_alone():
    strict, loose = SelectionRule(max_kl=0.05), SelectionRule(max_kl=5.0, min_induce=-5.0)
    search = Search(1, strict)
    search.run(staged=True)
    before = [set(known) for known in search.known]
    search.rule, search.stages = loose, replace(search.stages, rule=loose)
    asked: list[tuple[str, int]] = []
    while (stage := search.stages.next(search.table)) is not None:
        asked += [(name, number) for name in stage.names for number in stage.numbers]
        search.tell(stage.names, stage.numbers)
    assert asked
    assert len(asked) == len(set(asked))
    assert not [1 for name, number in asked if name in before[number]]
    whole = Search(1, loose)
    whole.tell_all()
    whole.more = search.more
    assert (
        select(search.table, loose, LAYERS, search.more).chosen == select(whole.table, loose, LAYERS, whole.more).chosen
    )
    search.stages = replace(search.stages, rule=strict)
    assert search.stages.next(search.table) is None
