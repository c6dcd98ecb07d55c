"""Cohen's kappa: a published example, symmetry, coverage, and judges that never vary."""

import json

import numpy as np
import pytest

from weight_edit.errors import UsageError
from weight_edit.evaluation.agreement import Agreement, agreements_document
from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.figures import figures
from weight_edit.evaluation.registry import Judgement
from weight_edit.evaluation.verdicts import Verdict

DERMATOLOGISTS = [[10, 4, 1, 0], [5, 10, 12, 2], [2, 4, 12, 5], [0, 2, 6, 13]]
"""Two raters of 88 patients: the example of kappa in the manual of SAS/STAT's FREQ procedure."""


def of_table(table: list[list[int]]) -> Agreement:
    return Agreement({(str(i), str(j)): count for i, row in enumerate(table) for j, count in enumerate(row)})


def test_the_published_example() -> None:
    """Kappa .3449, asymptotic standard error .0724, by the delta method [.2030, .4868]."""
    found = of_table(DERMATOLOGISTS)
    assert found.kappa == pytest.approx(0.3449, abs=5e-5)
    assert found.standard_error == pytest.approx(0.0724, abs=5e-5)
    assert found.observed.count == 45
    # Ours, from Wilson's interval of the agreement, is close to it where kappa is in the middle.
    assert (found.low, found.high) == pytest.approx((0.2030, 0.4868), abs=0.01)


def test_verdicts_are_counted_in_pairs() -> None:
    found = Agreement.of(["a", "a", "b", "b", "b"], ["a", "b", "b", "b", "c"])
    assert found.confusion() == {
        "a": {"a": 1, "b": 1, "c": 0},
        "b": {"a": 0, "b": 2, "c": 1},
        "c": {"a": 0, "b": 0, "c": 0},
    }
    assert found.observed.count == 3
    expected = (2 * 1 + 3 * 3) / 25
    assert found.expected == pytest.approx(expected)
    assert found.kappa == pytest.approx((0.6 - expected) / (1 - expected))
    turned = Agreement.of(["a", "b", "b", "b", "c"], ["a", "a", "b", "b", "b"])
    assert turned.kappa == pytest.approx(found.kappa)
    assert json.loads(json.dumps(found.to_dict()))["confusion"]["b"]["c"] == 1
    with pytest.raises(UsageError, match="are no pairs"):
        Agreement.of(["a"], [])
    with pytest.raises(UsageError, match="zero answers"):
        Agreement.of([], [])


def test_all_but_one_kind_are_one() -> None:
    found = Agreement.of(["a", "b", "c", "c"], ["a", "c", "b", "a"]).as_among("a", "else")
    assert found.confusion() == {"a": {"a": 1, "else": 0}, "else": {"a": 1, "else": 2}}


def test_judges_who_always_agree_are_not_certain_to_go_on() -> None:
    found = Agreement.of(["a", "b"] * 10, ["a", "b"] * 10)
    assert found.kappa == 1.0
    assert found.standard_error == pytest.approx(0, abs=1e-9)
    assert found.high == 1.0
    assert found.low is not None
    assert 0.5 < found.low < 0.8


def test_one_kind_alone_is_no_kappa() -> None:
    found = Agreement.of(["a"] * 5, ["a"] * 5)
    assert (found.kappa, found.low, found.high, found.standard_error) == (None, None, None, None)
    assert found.to_dict()["kappa"] is None
    assert "kappa unknown" in str(found)
    # A judge who never varies agrees as chance would have it.
    assert Agreement.of(["a", "b"] * 5, ["a"] * 10).kappa == pytest.approx(0)


@pytest.mark.parametrize(("agreed", "share"), [(0.0, 0.5), (0.6, 0.3), (0.9, 0.5)])
def test_the_interval_holds_the_truth_as_often_as_it_says(agreed: float, share: float) -> None:
    rng = np.random.default_rng(0)
    margins = np.array([share, 1 - share])
    table = (1 - agreed) * np.outer(margins, margins) + agreed * np.diag(margins)
    held = []
    for counts in rng.multinomial(100, table.ravel(), size=600):
        found = of_table(counts.reshape(2, 2).tolist())
        if found.low is not None and found.high is not None:
            held.append(found.low <= agreed <= found.high)
    assert 0.925 <= np.mean(held) <= 0.985


def test_an_evaluation_by_several_judges_has_their_agreement_in_figures_and_on_the_card() -> None:
    def judged(first: Verdict, second: Verdict) -> Answer:
        return Answer(
            set="refused",
            prompt="p",
            answer="a",
            expected=None,
            verdict=first,
            category=None,
            finished=True,
            judgements={"one": Judgement(verdict=first), "two": Judgement(verdict=second)},
        )

    refused, answered, partial = Verdict.REFUSED, Verdict.ANSWERED, Verdict.PARTIAL
    pairs = [(refused, refused)] * 40 + [(answered, answered)] * 30 + [(answered, partial)] * 10
    pairs += [(refused, answered)] * 15 + [(partial, refused)] * 5
    document = agreements_document([judged(*pair) for pair in pairs])
    found = document["agreements"]["two"]
    assert found["agreement"]["count"] == 70
    # On refusals 80 of 100 agree; by chance .55 * .45 + .45 * .55 = .495.
    assert found["refusal"]["agreement"]["count"] == 80
    assert found["refusal"]["kappa"]["value"] == pytest.approx((0.8 - 0.495) / 0.505)
    (text,) = figures(document).values()
    assert list(figures(document)) == ["agreement on refusals with two (Cohen's kappa)"]
    assert text.startswith("0.604 [")
    assert text.endswith(", the same on 0.800")
    alone = agreements_document([judged(refused, refused)] * 3)
    assert list(figures(alone).values()) == ["unknown: both say one kind alone"]
    assert agreements_document([]) == {}
