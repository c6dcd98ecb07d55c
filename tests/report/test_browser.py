"""The report in Chromium: nothing leaves it, all is drawn, and what is seen is what the run measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browser import IN_BROWSER, opened
from tests.helpers.report_samples import SETS, answers, sample_run, write_rows
from weight_edit.report.report import report_runs

pytestmark = IN_BROWSER

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)"><svg onload=alert(3)>{{7*7}}\u202e'

POSITIONS = """place => {
  const box = (mark) => { const b = mark.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; };
  const chart = document.querySelector(`[data-figure="${place}"] svg`);
  const of = (selector) => [...chart.querySelectorAll(selector)];
  const axes = of('g.role-axis');
  return {
    ticks: of('.role-axis-label text').map((label) => label.textContent),
    lines: of('.role-axis-grid line').map(box),
    marks: of('.mark-symbol.role-mark path').map((mark) => [...box(mark), mark.getAttribute('fill')]),
    texts: of('.mark-text.role-mark text').map((each) => each.textContent),
  };
}"""


A4 = 673
"""Pixels of what the page's margins leave of A4: 178 mm."""

WITHIN = """selector => {
  const seen = [...document.querySelectorAll(selector)].filter((each) => each.getClientRects().length);
  const out = seen.find((each) => each.getBoundingClientRect().right > innerWidth);
  if (out) { throw new Error(out.textContent + " is cut off"); }
  return seen.length;
}"""
"""How many elements of a selector are drawn; an error where one of them reaches beyond the window."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_runs(sample_run(tmp_path_factory.mktemp("runs") / "sample")).path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = sample_run(tmp_path_factory.mktemp("runs") / "<img src=x onerror=alert(4)>", title=HOSTILE, model=HOSTILE)
    for name, after in (("baseline", False), ("edited", True)):
        rows = answers(after, dict.fromkeys(SETS, HOSTILE))
        rows[0] |= {"answer": HOSTILE, "category": HOSTILE, "verdict": HOSTILE}
        write_rows(folder / "answers" / f"{name}.jsonl", rows)
    state = json.loads((folder / "run.json").read_text())
    for side in ("baseline", "edited"):
        state["summary"][side]["sets"]["refused"]["categories"][HOSTILE] = {"value": 0.5, "low": 0.2, "high": 0.8}
    state["summary"]["effect"]["finding"] = HOSTILE
    (folder / "run.json").write_text(json.dumps(state))
    return report_runs(folder).path


def drawn(found: Any) -> None:
    found.page.wait_for_selector(":root[data-drawn=yes]", timeout=90_000)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_all_is_drawn_nothing_is_asked_for_and_axe_has_nothing_to_say(
    chromium: Any, page: Path, scheme: str, width: int
) -> None:
    with opened(chromium, page.as_uri(), width=width, color_scheme=scheme) as found:
        drawn(found)
        charts = found.page.query_selector_all(".chart")
        assert len(charts) > 20
        for chart in charts:
            marks = chart.query_selector_all("svg .role-mark path, svg .role-mark line, svg .role-mark text")
            assert marks, chart.get_attribute("data-figure")
        assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert found.page.evaluate(WITHIN, ".chart [class*=legend] text, caption span") > 20
        assert found.accessibility() == []
        assert (found.errors, found.dialogs) == ([], [])
        assert found.requests == [page.as_uri()]


def test_dots_stand_where_the_run_has_its_rates(chromium: Any, page: Path) -> None:
    state = json.loads((page.parents[1] / "run.json").read_text())
    with opened(chromium, page.as_uri()) as found:
        drawn(found)
        seen = found.page.evaluate(POSITIONS, "before-and-after")
    ticks = [float(said.rstrip("%")) / 100 for said in seen["ticks"] if said.endswith("%")]
    lines = sorted(x for x, _ in seen["lines"])
    assert len(ticks) == len(lines)
    step = (lines[-1] - lines[0]) / (ticks[-1] - ticks[0])
    read = [
        (round((x - lines[0]) / step + ticks[0], 2), fill) for x, _, fill in sorted(seen["marks"], key=lambda m: m[1])
    ]
    assert {fill for _, fill in read} == {"var(--base)", "var(--edited)"}
    paths = ("refused.refusal", "refused.exact", "over_refused.refusal", "harmless_looking.refusal")
    paths = (*paths, "answered.refusal", "answered.exact")
    for side, fill in (("baseline", "var(--base)"), ("edited", "var(--edited)")):
        sets = state["summary"][side]["sets"]
        kept = [sets[path.split(".")[0]][path.split(".")[1]]["value"] for path in paths]
        assert [value for value, of in read if of == fill] == pytest.approx(kept, abs=0.006)
    assert seen["texts"][0] == "95.0 → 7.5 %"


def test_the_table_behind_a_picture_and_the_sentences_say_what_the_run_has(chromium: Any, page: Path) -> None:
    state = json.loads((page.parents[1] / "run.json").read_text())
    with opened(chromium, page.as_uri()) as found:
        drawn(found)
        # What is folded has no rendered text.
        found.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        top = found.page.inner_text(".first")
        sides = [state["summary"][side]["sets"]["refused"]["refusal"] for side in ("baseline", "edited")]
        said = [f"{100 * r['value']:.1f} % [{100 * r['low']:.1f}, {100 * r['high']:.1f}]" for r in sides]
        assert "\t".join(["refusal of refused requests", "40", *said]) in top
        assert "KL at the first token, nats: 0.0312 [0.0212, 0.0412]" in top
        assert "7.2e-08 of the residual stream" in top or "7.3e-08 of the residual stream" in top
        assert "44 other tensors and 6 files" in top
        assert "0.81" in found.page.inner_text("#search")


def test_answers_are_found_by_words_and_by_verdict(chromium: Any, page: Path) -> None:
    with opened(chromium, page.as_uri()) as found:
        drawn(found)
        shown = "document.querySelectorAll('.pairs > li:not([hidden])').length"
        assert found.page.evaluate(shown) == 20
        found.page.fill("[name=words]", "question 7 of answered")
        assert found.page.evaluate(shown) == 1
        found.page.fill("[name=words]", "")
        found.page.select_option("[name=verdict]", "refused → answered")
        changed = sum(before - after for _, before, after in SETS.values() if before > after)
        assert f"{changed} prompts" in found.page.inner_text(".filters")


def faint(figure: Any) -> list[bool]:
    """Whether each mark is hardly seen."""
    return [float(mark.get_attribute("opacity") or 1) < 0.2 for mark in figure.query_selector_all(".role-mark path")]


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("geometry", ".role-legend-entry text"),
        ("front", ".role-legend-entry text"),
        ("components", ".mark-text.role-mark:last-child text"),
    ],
)
def test_a_series_that_is_clicked_stands_alone_until_all_are_asked_for(
    chromium: Any, page: Path, name: str, series: str
) -> None:
    with opened(chromium, page.as_uri()) as found:
        drawn(found)
        figure = found.page.wait_for_selector(f"#fig-{name}")
        assert not any(faint(figure))
        figure.query_selector(series).click(force=True)
        found.page.wait_for_timeout(200)
        alone = faint(figure)
        assert any(alone)
        assert not all(alone)
        # The other names stay where they are, and one more is added by Shift.
        figure.query_selector_all(series)[1].click(force=True, modifiers=["Shift"])
        found.page.wait_for_timeout(200)
        assert sum(faint(figure)) < sum(alone)
        found.page.mouse.click(*at(figure, 0.5, 0.52))
        found.page.wait_for_timeout(200)
        assert not any(faint(figure))
        assert found.errors == []


def at(figure: Any, right: float, down: float) -> tuple[float, float]:
    """A place in a picture, in shares of its width and height."""
    box = figure.query_selector(".chart svg").bounding_box()
    return box["x"] + box["width"] * right, box["y"] + box["height"] * down


def test_the_wheel_looks_closer_with_control_and_else_scrolls_the_page(chromium: Any, page: Path) -> None:
    with opened(chromium, page.as_uri()) as found:
        drawn(found)
        figure = found.page.wait_for_selector("#fig-geometry")
        figure.scroll_into_view_if_needed()

        def ticks() -> list[str]:
            return sorted(found.page.evaluate(POSITIONS, "geometry")["ticks"])

        whole = ticks()
        found.page.mouse.move(*at(figure, 0.5, 0.5))
        found.page.keyboard.down("Control")
        found.page.mouse.wheel(0, -400)
        found.page.keyboard.up("Control")
        found.page.wait_for_timeout(200)
        closer = ticks()
        assert closer != whole
        before = found.page.evaluate("scrollY")
        found.page.mouse.wheel(0, 200)
        found.page.wait_for_timeout(300)
        assert found.page.evaluate("scrollY") > before
        assert ticks() == closer
        found.page.mouse.dblclick(*at(figure, 0.5, 0.5))
        found.page.wait_for_timeout(200)
        assert ticks() == whole


def test_without_scripts_the_answers_and_numbers_are_there(chromium: Any, page: Path) -> None:
    with opened(chromium, page.as_uri(), java_script_enabled=False) as found:
        assert "Question 7 of answered?" in found.page.inner_text("#answers")
        assert "Complete" in found.page.inner_text(".first")


def test_the_theme_is_turned_by_hand_and_print_is_light(chromium: Any, page: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with opened(chromium, page.as_uri(), color_scheme="dark") as found:
        drawn(found)
        dark = found.page.evaluate(paper)
        found.page.click("#theme")
        assert found.page.evaluate(paper) == "rgb(255, 255, 255)" != dark
        found.page.click("#theme")
        found.page.emulate_media(media="print")
        assert found.page.evaluate(paper) == "rgb(255, 255, 255)"


def test_on_paper_no_table_and_no_command_is_cut_off(chromium: Any, page: Path) -> None:
    with opened(chromium, page.as_uri(), width=A4) as found:
        drawn(found)
        found.page.emulate_media(media="print")
        found.page.evaluate("for (const each of document.querySelectorAll('.first details')) { each.open = true; }")
        assert found.page.evaluate(WITHIN, "td, th, pre code span, pre code") > 100
        assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_hostile_texts_run_nothing(chromium: Any, hostile: Path) -> None:
    with opened(chromium, hostile.as_uri()) as found:
        drawn(found)
        found.page.hover(".chart svg")
        assert found.page.inner_text("h1").startswith("</script><script>alert(1)</script>")
        assert found.page.evaluate("document.querySelectorAll('img, iframe, object, embed').length") == 0
        assert found.page.evaluate("document.querySelectorAll('script').length") == 3
        assert "49" not in found.page.inner_text("h1")
        assert (found.errors, found.dialogs) == ([], [])
        assert len(found.requests) == 1
