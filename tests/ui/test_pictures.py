"""The front as a picture, and the turns of a chat as HTML."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from weight_edit.chat.turns import Answer, Turn
from weight_edit.errors import UsageError
from weight_edit.ui.conversation import Conversation, example, turns_html
from weight_edit.ui.front_picture import front_picture

EVIL = "<script>alert(1)</script>"


def point(digest: str, damage: Any, rate: Any) -> dict[str, Any]:
    refusal = {"128": {"value": rate, "low": 0.0, "high": 1.0}, "64": {"value": 0.9, "low": 0.9, "high": 0.9}}
    return {
        "digest": digest,
        "cheap": {"validation": {"damage": damage}},
        "judged": {"sets": {"refused": {"refusal": refusal}}},
    }


def circles(svg: str) -> list[tuple[str, float, float]]:
    found = re.findall(r'<circle class="(we-\w+)" cx="([\d.]+)" cy="([\d.]+)"', svg)
    return [(kind, float(x), float(y)) for kind, x, y in found]


def test_points_stand_where_their_figures_say() -> None:
    drawn = circles(front_picture([point("a", 1e-4, 1.0), point("b", 1e-3, 0.5), point("c", 1e-2, 0.0)], "b"))
    assert [kind for kind, _, _ in drawn] == ["we-point", "we-picked", "we-point"]
    (_, x1, y1), (_, x2, y2), (_, x3, y3) = drawn
    # Decades are equally wide, and the longest answers' rates count.
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert x2 > x1
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.2)
    assert y3 > y1


@pytest.mark.parametrize("damage", [None, "x", EVIL])
def test_points_without_figures_are_left_out(damage: Any) -> None:
    assert front_picture([point("a", 1e-4, 1.0), point("b", damage, 0.5)], "a") == ""
    assert len(circles(front_picture([point("a", 0.0, 1.0), point("b", 1e-3, 0.5), point("c", damage, 0.5)], "a"))) == 2


def test_what_models_say_stays_text() -> None:
    answer = Answer(
        text=EVIL,
        thought=None,
        pieces=(EVIL, "b"),
        components=(0.0, 10.0),
        reason="length",
        edit=EVIL,
        seconds=1.0,
    )
    scale = SimpleNamespace(share=lambda component: component / 10)
    session: Any = SimpleNamespace(
        turns=[Turn(prompt=EVIL, answers=(answer,))], sides=[SimpleNamespace(name=EVIL)], scale=scale
    )
    shown = turns_html(session)
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 4
    strengths = [float(each) for each in re.findall(r"/ ([\d.]+)\)", shown)]
    assert strengths == [0.0, 0.55]


def test_examples_are_of_the_set_and_begin_anew() -> None:
    first = example("organism:refused:test", 0)
    assert first != example("organism:refused:test", 1)
    assert example("organism:refused:test", 220) == first
    with pytest.raises(UsageError, match="did you mean"):
        example("organism:refusd", 0)


def test_a_chat_needs_something_to_be_tried() -> None:
    def project(way: str) -> Any:
        settings = SimpleNamespace(model="organism", way=way)
        return SimpleNamespace(directions=None, point=None, edited=None, settings=settings)

    for way, tried, said in (
        ("find", "hooks", "step 4"),
        ("find", "baked", "step 7"),
        ("search", "hooks", "search first"),
    ):
        with pytest.raises(UsageError, match=said):
            Conversation._source(project(way), tried)
