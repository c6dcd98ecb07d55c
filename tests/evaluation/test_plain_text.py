"""Plain text evens out how a wording is dressed, and knows where each character came from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.evaluation.phrase_list import skeleton
from weight_edit.evaluation.plain_text import normalise, plain

texts = st.text(alphabet=st.characters(codec="utf-8"))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("I’m  *so* sorry\n", "i'm so sorry"),
        ("Don&#39;t &amp; won&rsquo;t", "don't & won't"),
        ("ca\u200bn\u00adnot", "cannot"),
        ("Ｆｕｌｌ ﬁt", "full fit"),
        ("саnnоt", "cannot"),  # с and о are Cyrillic
        ("нe могу", "не могу"),  # e is Latin
        ("Ничего, hello", "ничего, hello"),
        ("A Russian word: ель", "a russian word: ель"),
        ("e\u0301te\u0301", "été"),
    ],
)
def test_forms(text, form):
    assert normalise(text) == form


@given(texts)
def test_every_character_has_its_place(text):
    found = plain(text)
    assert len(found.text) == len(found.places)
    assert list(found.places) == sorted(found.places)
    assert all(0 <= place < len(text) for place in found.places)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="&"), max_size=40))
def test_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


def test_quotations_and_code_are_no_words_unless_there_is_nothing_else():
    assert skeleton('He said: "I cannot." Then he left', True).text == " he said . . then he left . "
    assert "cannot" in skeleton('"I cannot."', True).text
    assert "cannot" not in skeleton('"I cannot."', True, quotes=True).text
    assert skeleton("a 3.5 e.g. b", True).text == " a 3 5 e g . b . "
    assert skeleton("我 不能, 不", False).text == "我不能不."
