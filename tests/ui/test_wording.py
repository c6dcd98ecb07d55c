"""What was written for a terminal, or for Python, is said in the words of the page."""

import pytest

from weight_edit.errors import UsageError
from weight_edit.ui.wording import Wording

WORDING = Wording({"kind": "Kind <b>", "layers": "Layers", "best_effort": "Nearest", "limit": "At most"})


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("nothing -- to say of x--y", None),
        ("take --kind ablate, or leave --layers out", "take “Kind <b>” ablate, or leave “Layers” out"),
        ("pass --no-best-effort", "pass “Nearest” off"),
        ("a exists; choose another file or pass --overwrite", "a exists; choose another file"),
        ("a exists; choose another --out", "a exists"),
        (
            "a: too large; set it, or fewer (--limit), or --other, or --more 3",
            "a: too large; set it, or fewer (“At most”)",
        ),
        ("not ours (--allow x copies it), or so; take --this; or use bake", "not ours, or so; use bake"),
        (
            "its code is not run unless you pass --trust",
            "its code is not run unless you pass the command line's --trust",
        ),
        ("`layers` is one, `rows` is none", "“Layers” is one, `rows` is none"),
    ],
)
def test_settings_are_labels_and_ways_without_a_field_are_left_out(said: str, shown: str | None) -> None:
    assert WORDING.message(said) == (said if shown is None else shown)


@pytest.mark.parametrize(
    ("said", "options", "shown"),
    [
        ("use `kind='ablate'`, `best_effort=True`", ("kind",), "use “Kind <b>” ablate, “Nearest”"),
        ("`at=[3]` is none; leave `at` out", ("at",), "the command line's --at [3] is none"),
        ("a; take another, or give `at`", ("at",), "a; take another"),
        ("`rows` of `at`", (), "`rows` of `at`"),
    ],
)
def test_an_error_is_said_in_the_words_of_the_page(said: str, options: tuple[str, ...], shown: str) -> None:
    assert WORDING.message(UsageError(said, option=options)) == shown


def test_texts_between_tags_are_worded_and_stay_texts() -> None:
    html = '<p class="--kind">--kind &lt;i&gt; or --kind; --none</p><p>as &#36;it is</p>'
    assert WORDING.html(html) == (
        '<p class="--kind">“Kind &lt;b&gt;” &lt;i&gt; or “Kind &lt;b&gt;”</p><p>as &#36;it is</p>'
    )
