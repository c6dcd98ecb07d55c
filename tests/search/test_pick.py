"""One point of a front is picked by a rule that is said, and by nothing else where none keeps it."""

import pytest

from weight_edit.errors import UsageError
from weight_edit.search.front import FrontPoint
from weight_edit.search.pick import PickRule, picked


def point(digest, refusal, damage, interval=None, over=None):
    return FrontPoint(digest=digest * 12, refusal=refusal, damage=damage, interval=interval, over_refusal=over)


FRONT = [
    point("a", 0.9, 1e-4),
    point("b", 0.3, 1e-3),
    point("c", 0.05, 2e-3, (0.01, 0.14)),
    point("d", 0.02, 3e-2, (0.0, 0.04)),
    point("e", 0.0, 2e-1),
]


@pytest.mark.parametrize(
    ("rule", "digest"),
    [
        ("refusal<=0.05", "c"),
        ("refusal <= .3", "b"),
        ("refusal<=0", "e"),
        ("damage<=0.05", "d"),
        ("damage<=2e-3", "c"),
        ("refusal<=0.3, damage<=0.05", "b"),
        ("damage<=0.05,refusal<=0.02", "d"),
        ("knee", "c"),
        ("2", "b"),
        ("D" * 12, "d"),
        ("eeeee", "e"),
    ],
)
def test_rules_pick(rule, digest):
    found = picked(FRONT[::-1], rule)
    assert found.point.digest == digest * 12
    assert found.kept
    assert found.reason.startswith(("picked by name", PickRule.parse(rule).description))


def test_the_default_is_the_least_damage_of_at_most_a_twentieth_refused():
    found = picked(FRONT)
    assert found.point.digest == "c" * 12
    assert "a refusal of at most 0.05" in found.reason


def test_where_the_interval_goes_beyond_the_bound_the_reason_says_so():
    assert "its interval goes up to 0.140" in picked(FRONT).reason
    assert "interval" not in picked(FRONT[3:]).reason


@pytest.mark.parametrize(
    ("rule", "digest", "said"),
    [
        ("refusal<=0.01", "d", "no point has a refusal of at most 0.01: the one with the least, 0.02, was taken"),
        ("damage<=1e-5", "a", "no point has a damage of at most 1e-05 nats per token"),
    ],
)
def test_where_no_point_keeps_the_bound_the_nearest_is_taken_and_said(rule, digest, said):
    found = picked(FRONT[:4], rule)
    assert (found.point.digest, found.kept) == (digest * 12, False)
    assert found.reason.startswith(said)


OVER = [
    point("a", 0.04, 1e-3, over=0.3),
    point("b", 0.02, 2e-3, over=0.1),
    point("c", 0.3, 3e-3, over=0.0),
]


def test_percentages_are_no_rates():
    with pytest.raises(UsageError, match=r"`pick=refusal<=5`: refusal is a rate between 0 and 1, such as"):
        PickRule.parse("refusal<=5")
    with pytest.raises(UsageError, match="over-refusal is a rate between 0 and 1"):
        PickRule.parse("damage<=3,over-refusal<=1.5")


@pytest.mark.parametrize(
    ("rule", "digest", "kept", "said"),
    [
        ("refusal<=0.05", "a", True, "the least damage of the points with a refusal of at most 0.05"),
        ("refusal<=0.05,over-refusal<=0.1", "b", True, "a refusal of at most 0.05 and an over-refusal of at most 0.1"),
        ("over-refusal<=0.1", "b", True, "the least refusal of the points with an over-refusal of at most 0.1"),
        (
            "refusal<=0.05,over-refusal<=0",
            "b",
            False,
            "no point with a refusal of at most 0.05 has an over-refusal of at most 0: the one with the least, 0.1",
        ),
        ("over-refusal<=0,refusal<=0.05", "c", False, "no point with an over-refusal of at most 0 has a refusal of at"),
    ],
)
def test_several_bounds_are_kept_in_their_order(rule, digest, kept, said):
    found = picked(OVER, rule)
    assert (found.point.digest, found.kept) == (digest * 12, kept)
    assert said in found.reason


def test_an_over_refusal_that_was_not_measured_keeps_no_bound():
    found = picked(FRONT, "refusal<=0.05,over-refusal<=0.1")
    assert (found.point.digest, found.kept) == ("c" * 12, False)
    assert found.reason == "over-refusal was not measured, so that its bound could not be kept"


def test_ties_go_to_less_damage_and_then_to_the_first_digest():
    equal = [point("f", 0.0, 0.1), point("e", 0.0, 0.1), point("d", 0.0, 0.2)]
    assert picked(equal, "refusal<=0.1").point.digest == "e" * 12
    assert picked(equal, "damage<=0.5").point.digest == "e" * 12
    assert picked(equal, "damage<=0.01").point.digest == "e" * 12


@pytest.mark.parametrize("front", [FRONT[:1], FRONT[:2], [FRONT[0], point("b", 0.89, 1e-2), FRONT[4]]])
def test_a_front_without_a_knee_says_so(front):
    found = picked(front, "knee")
    assert not found.kept
    assert f"the front of {len(front)} points has no knee" in found.reason
    assert found.point == picked(front).point


@pytest.mark.parametrize(
    "text",
    [
        "",
        "refusal<0.1",
        "damage<=x",
        "0",
        "knees",
        "-1",
        "refusal<=1.2.3",
        "abc",
        "refusal<=.1,",
        "refusal<=.1,refusal<=.2",
    ],
)
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(UsageError, match=r"write refusal<=0\.1, damage<=0\.02") as error:
        PickRule.parse(text)
    assert error.value.options == ("pick",)


@pytest.mark.parametrize(
    ("rule", "said"),
    [("6", "the front has 5 points"), ("ffff", "no point of the front begins so"), ("aaaa", "several points")],
)
def test_points_that_are_not_there_are_refused(rule, said):
    with pytest.raises(UsageError, match=said):
        picked([*FRONT, point("a", 0.0, 0.3)] if "several" in said else FRONT, rule)


def test_an_empty_front_is_refused():
    with pytest.raises(UsageError, match="found no point"):
        picked([])


@pytest.mark.parametrize(
    "text",
    ["refusal<=0.1", "damage<=0.02", "refusal<=0.1,over-refusal<=0.2", "knee", "3", "0123456789ab", "123456789012"],
)
def test_a_rule_is_written_as_it_is_read(text):
    rule = PickRule.parse(text)
    assert PickRule.parse(str(rule)) == rule
    assert str(rule) == text
