"""Side effects on style: each measure counts what it names, and differences are those of the same prompts."""

import json

import pytest

from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.paired_answers import paired_document
from weight_edit.evaluation.style import MEANS, RATES, differences_of_style, style_of
from weight_edit.evaluation.verdicts import Verdict

PROMPT = "How do I bake a loaf of bread at home, and what do I need for it?"
PLAIN = "Mix the flour with the water and the yeast, let it rest, and bake it for an hour in the oven."


def answer(text, *, prompt=PROMPT, tokens=20):
    return Answer(
        set="answered",
        prompt=prompt,
        answer=text,
        expected=None,
        verdict=Verdict.ANSWERED,
        category=None,
        finished=True,
        tokens=tokens,
    )


def only(text):
    return style_of([answer(text)])


@pytest.mark.parametrize(
    ("measure", "with_it", "without"),
    [
        ("apology", f"I'm sorry. {PLAIN}", PLAIN),
        ("apology", f"My apologies for that. {PLAIN}", f"It is a sorrel bread. {PLAIN}"),
        ("lists", f"{PLAIN}\n- flour\n- water\n", f"{PLAIN}\n- this is said aside"),
        ("lists", f"{PLAIN}\n1. flour\n2. water\n", f"{PLAIN} 1. flour 2. water"),
        ("headings", f"## Bread\n{PLAIN}", f"#bread {PLAIN}"),
        ("headings", f"# Bread\n{PLAIN}", f"{PLAIN}\n```sh\n# a comment\n```\n"),
        ("code", f"{PLAIN}\n```py\nprint(1)\n```\n", f"{PLAIN} `print`"),
        ("code", f"{PLAIN}\n```py\nprint(1)", PLAIN),
        ("bold", f"**Bread.** {PLAIN}", f"{PLAIN} 2 ** 3 ** 4"),
        ("bold", f"__Bread__ {PLAIN}", f"{PLAIN} my__name__here"),
    ],
)
def test_a_rate_counts_what_it_names(measure, with_it, without):
    assert only(with_it).rates[measure].value == 1
    assert only(without).rates[measure].value == 0


def test_words_of_each_kind_by_the_hundred():
    assert only(PLAIN).means["hedging"].value == 0
    hedged = only("Perhaps you could bake it in the oven, I think, and it may be good with the butter on top of it.")
    assert hedged.means["words"].value == 22
    assert hedged.means["hedging"].value == pytest.approx(100 * 4 / 22)
    assert hedged.means["first_person"].value == pytest.approx(100 / 22)


def test_intervals_hold_the_mean_and_need_three_answers():
    few, more = style_of([answer(PLAIN)] * 2), style_of([answer(PLAIN, tokens=n) for n in (10, 20, 60)])
    assert (few.means["tokens"].low, few.means["tokens"].high) == (None, None)
    tokens = more.means["tokens"]
    assert tokens.value == 30
    assert tokens.low < 30 < tokens.high
    assert more.rates["bold"].low == 0 < more.rates["bold"].high


def test_languages_and_lists_of_english_words_alone():
    german = "Das Brot wird mit dem Mehl und dem Wasser gemacht, und es ist nicht zu heiß. Es tut mir leid, sorry."
    style = style_of([answer(PLAIN), answer(PLAIN), answer(german), answer("")])
    assert {code: (rate.count, rate.total) for code, rate in style.languages.items()} == {"en": (2, 3), "de": (1, 3)}
    assert (style.rates["own_language"].count, style.rates["own_language"].total) == (2, 3)
    # The German answer has "sorry" in it, and is judged by no list of English words.
    assert (style.rates["apology"].count, style.rates["apology"].total) == (0, 2)
    assert style.means["hedging"].count == 2
    assert (style.means["words"].count, style.means["tokens"].count) == (3, 4)


def test_nothing_to_measure_is_missing_and_not_zero():
    style = style_of([answer("", tokens=None)])
    assert style.means == {}
    assert style.rates == {}
    assert style.to_dict() == {"languages": {}}


def test_differences_are_paired_and_corrected():
    base = [answer(f"I'm sorry, I cannot. {PLAIN}", tokens=30) for _ in range(12)]
    edited = [answer(f"**Bread.** {PLAIN}", tokens=24 + n % 3) for n in range(12)]
    found = differences_of_style(base, edited)["answered"]
    assert set(found) == {*MEANS, *RATES}
    assert found["tokens"].value == -5
    assert found["tokens"].verdict == "lower"
    assert found["apology"].value == -1
    assert found["apology"].corrected > found["apology"].p
    assert found["bold"].verdict == "higher"
    assert found["lists"].verdict == "no difference can be told"
    document = paired_document(base, edited)["answered"]
    assert document["style"]["bold"]["p_holm"] == found["bold"].corrected
    json.dumps(document, allow_nan=False)


def test_a_pair_has_both_figures():
    base, edited = [answer(PLAIN)] * 3, [answer(""), answer(PLAIN), answer(PLAIN)]
    found = differences_of_style(base, edited)["answered"]
    assert found["bold"].count == 2
    assert "words" not in found
    assert found["tokens"].count == 3
