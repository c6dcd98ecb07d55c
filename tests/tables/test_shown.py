"""Results as tables in a notebook and a terminal: the figures of the document, escaped, with plots at their place."""

import json
import linecache
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import weight_edit
from tests.helpers.parsed_html import ParsedHtml
from weight_edit.directions.directions import Directions
from weight_edit.errors import UsageError
from weight_edit.evaluation.intervals import Rate
from weight_edit.runs.run import RunResult
from weight_edit.tables.html import as_html
from weight_edit.tables.results import tables_of
from weight_edit.tables.shown import Shown, show
from weight_edit.tables.table import Estimate, Table, estimate_of
from weight_edit.utils.progress import bar, quieted

HOSTILE = '<script>alert(1)</script>\x1b[31m" onload="x'

INTERVALS: tuple[Any, ...] = ([1], {"bypass": 3}, {"bypass": ["a", "b"]}, {"bypass": [1, 2, 3]}, {"bypass": [1]})


def evaluation(refused: int, over: int) -> dict[str, Any]:
    sets = {
        "refused": {"refusal": Rate(refused, 20).to_dict(), "exact": None, "count": 20},
        HOSTILE: {"refusal": Rate(over, 10).to_dict(), "exact": Rate(5, 10).to_dict(), "count": 10},
    }
    return {
        "sets": sets,
        "max_new_tokens": 64,
        "judge": "phrases",
        "divergence": {"mean": 0.01, "low": 0, "high": 0.02},
    }


DIFFERENCE = {"refused": {"refusal": {"value": -0.95, "low": -1.0, "high": -0.7, "told": True}}}
SUMMARY = {
    "direction": {"method": "mean-difference", "layer": 3, "position": -1, "kl": 0.0056, "warnings": [HOSTILE]},
    "baseline": evaluation(19, 9),
    "edited": {**evaluation(0, 1), "differences": DIFFERENCE},
    "verification": {"passed": True, "leak": 7.3e-8, "problems": []},
    "geometry": {"before": {"value": 0.99, "low": 0.95, "high": 1.0}, "after": {"value": 0.5, "low": 0.4, "high": 0.6}},
}
RESULT = RunResult(Path("runs/x"), Path("runs/x/model"), SUMMARY)


def test_a_run_as_html_has_its_figures_with_intervals() -> None:
    read = ParsedHtml(RESULT._repr_html_())
    low, high = Rate(19, 20).low, Rate(19, 20).high
    assert f"0.950 [{low:.3f}, {high:.3f}]" in read.cells
    assert "-0.950 [-1.000, -0.700]" in read.cells
    assert "7.3e-08" in read.cells
    assert {"mean-difference", "yes", "0.010 [0.000, 0.020]"} <= set(read.cells)


def test_no_text_of_others_is_markup() -> None:
    text = RESULT._repr_html_()
    read = ParsedHtml(text)
    allowed = {
        "div",
        "p",
        "strong",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "svg",
        "line",
        "circle",
        "small",
    }
    assert read.names <= {*allowed}
    assert not read.handlers
    assert "\x1b" not in text
    assert any("<script>alert(1)</script>" in cell for cell in read.cells)


@pytest.mark.parametrize(("value", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (7.0, 1.0)])
def test_dots_and_intervals_lie_where_their_figures_are(value: float, share: float) -> None:
    table = Table(
        title="", columns=("", ""), rows=(("x", Estimate(value, value, min(value + 0.1, 1.0))),), scale=(0, 1)
    )
    read = ParsedHtml(as_html("t", [table]))
    (axis, line), (dot,) = ([found for tag, found in read.tags if tag == wanted] for wanted in ("line", "circle"))
    left, right = (float(axis[key] or 0) for key in ("x1", "x2"))
    assert float(dot["cx"] or 0) == pytest.approx(left + share * (right - left), abs=0.1)
    assert float(line["x1"] or 0) == pytest.approx(float(dot["cx"] or 0))
    (label,) = (found["aria-label"] for tag, found in read.tags if tag == "svg")
    assert label == str(table.rows[0][1])


def test_differences_are_not_drawn_on_the_axis_of_rates() -> None:
    read = ParsedHtml(as_html("t", [tables_of("RunResult", {**SUMMARY, "direction": None})[0]]))
    assert sum(tag == "svg" for tag, _ in read.tags) == 3
    assert sum(tag == "circle" for tag, _ in read.tags) == 6
    assert "\u25cb base, \u25cf edited, from 0 to 1" in as_html("t", [tables_of("RunResult", SUMMARY)[2]])


def test_a_cross_entropy_stands_beside_the_bases() -> None:
    loss = {"mean": 2.5, "low": 2.0, "high": 3.0}
    text = {**loss, "base": {**loss, "mean": 2.25}, "difference": {"value": 0.25, "low": 0.125, "high": 0.5}}
    (table,) = tables_of("Evaluation", {"base": {}, "text": text})
    assert table.columns[1:] == ("base", "edited", "difference")
    said = ["2.250 [2.000, 3.000]", "2.500 [2.000, 3.000]", "+0.250 [+0.125, +0.500]"]
    assert [str(cell) for cell in table.rows[0][1:]] == said
    (alone,) = tables_of("Evaluation", {"text": loss})
    assert (alone.title, alone.columns) == ("Loss", ("figure", "mean"))


def test_what_a_figure_is() -> None:
    assert estimate_of({"mean": 1, "low": None, "high": None}) == Estimate(1.0)
    assert estimate_of(True) is estimate_of("1") is estimate_of({"count": 3}) is estimate_of(None) is None
    assert str(Estimate(0.5, 0.25, 0.75, signed=True)) == "+0.500 [+0.250, +0.750]"
    assert str(Estimate(0.0)) == "0.000"


def test_every_public_result_shows_itself() -> None:
    names = [name for name in weight_edit.__all__ if name.endswith("Result")]
    kinds = {
        *names,
        "Evaluation",
        "Verification",
        "Directions",
        "Difference",
        "JudgedAnswers",
        "Inspection",
        "CostPlan",
    }
    for name in kinds:
        kind = getattr(weight_edit, name)
        assert issubclass(kind, Shown), name
        assert kind.to_dict is not Shown.to_dict, name


def test_a_document_of_another_kind_has_its_plain_values() -> None:
    document = {"path": "x", "files": ["a", "b"], "bytes": 12, "nothing": None, "rate": {"value": 0.5}}
    (table,) = tables_of("ReportResult", document)
    assert table.rows == (("path", "x"), ("files", "a, b"), ("bytes", "12 B"), ("rate", Estimate(0.5)))
    assert tables_of("Evaluation", {}) == []


def test_what_a_document_holds_is_never_shown_as_its_number() -> None:
    """A mapping has a table of its own, or is not shown; of a list its first entries are named."""
    document = {"size": 3000, "parts": {"a": {"b": 1}, "c": {}}, "names": [*"abcd"], "sizes": {"x": 1, "y": 2}}
    (table,) = tables_of("AdapterResult", document)
    assert table.rows == (("size", "3 kB"), ("names", "4: a, b, c, ..."), ("sizes", "x, y"))


def test_an_inspection_shows_what_writes_what_reads_and_the_proof() -> None:
    cells = ParsedHtml(weight_edit.inspect("organism")._repr_html_()).cells
    assert {"organism", "LlamaForCausalLM", "128 wide", "57 tensors", "F32 128 x 384"} <= set(cells)
    assert {"model.layers.{0..5}.mlp.down_proj.weight", "model.layers.{0..5}.self_attn.q_proj"} <= set(cells)
    assert "left of it after an ablation" in cells


def test_a_plan_shows_what_each_step_costs() -> None:
    plan = weight_edit.plan_costs("organism", tokens=20, flops=1e12, disk_rate=1e9)
    cells = ParsedHtml(plan._repr_html_()).cells
    assert {"1.71M, float32, 6.82 MB", "load", "selection", "the checkpoint into memory", "all of it"} <= set(cells)
    assert "of it on the device" not in cells


def test_right_answers_are_a_share_of_the_prompts_whose_answer_is_known() -> None:
    found = {"refusal": Rate(1, 20).to_dict(), "exact": Rate(3, 4).to_dict(), "count": 20}
    (table,) = tables_of("Evaluation", {"sets": {"refused": found}, "notes": []})
    assert [row[-1] for row in table.rows] == [20, 4]


def test_what_passed_stands_beside_what_the_edit_claims() -> None:
    document = {"passed": True, "complete": False, "integrity": True, "leak": 0.25, "problems": []}
    rows = dict(tables_of("Verification", document)[0].rows)
    assert rows["every check of what this edit claims has passed"] == "yes"
    assert rows["the edit claims to leave nothing of the direction"] == "no, by intention"
    assert rows["left in the stream, share of its length, at most, not judged"] == Estimate(0.25)
    assert not any("nothing is left" in name for name in rows)


def test_a_run_that_answered_nothing_says_so() -> None:
    summary = {"baseline": {}, "edited": {}, "direction": None, "verification": SUMMARY["verification"]}
    cells = ParsedHtml(RunResult(Path("runs/x"), Path("runs/x/model"), summary)._repr_html_()).cells
    assert {"not measured", "the recipe names no prompts to evaluate"} <= set(cells)


def test_judges_are_shown_against_labels_and_what_is_not_defined_is_said() -> None:
    refusal = {"accuracy": Rate(8, 15).to_dict(), "kappa": {"value": 0.25, "low": 0.125, "high": 0.5}}
    verdicts = {"verdicts": {"refused": Rate(11, 15).to_dict(), "answered": Rate(0, 15).to_dict()}}
    document = {
        "count": 15,
        "labelled": 15,
        "judges": {"phrases": verdicts},
        "agreements": [{"first": "phrases", "second": "guard", "kappa": None}],
        "labels": {"phrases": {"refusal": refusal, "lean": {"value": 0.5, "low": 0.25, "high": 0.75}}},
        "notes": ["a note"],
    }
    rates, agreement, labels, notes = tables_of("JudgedAnswers", document)
    assert rates.rows == (("phrases", "refused", estimate_of(Rate(11, 15).to_dict()), "11 of 15"),)
    assert agreement.rows[0][1] == "not defined: all are of one kind"
    assert [str(cell) for cell in labels.rows[0][2:]] == ["0.250 [0.125, 0.500]", "+0.500 [+0.250, +0.750]"]
    assert notes.rows == (("note", "a note"),)


def test_the_front_of_a_search_marks_the_picked_point() -> None:
    refusal = {"24": Rate(4, 10).to_dict(), "128": Rate(2, 10).to_dict()}
    points = [
        {
            "digest": name,
            "judged": {"sets": {"refused": {"refusal": refusal}}},
            "cheap": {"validation": {"damage": 0.1}},
        }
        for name in ("aa", "bb")
    ]
    document = {"front": points, "picked": {"point": {"digest": "bb"}}, "tau": {"sentence": "it ranks"}}
    (table,) = tables_of("SearchResult", document)
    assert [row[-1] for row in table.rows] == ["", "picked"]
    assert table.rows[0][1:3] == (estimate_of(refusal["128"]), 10)
    assert table.note == "it ranks"


def test_show_prints_the_same_figures(capsys: pytest.CaptureFixture[str]) -> None:
    show(RESULT)
    out = capsys.readouterr().out
    assert out.startswith("RunResult('runs/x'")
    for cell in ParsedHtml(RESULT._repr_html_()).cells:
        for part in re.findall(r"[-+]?\d\.\d{3}", cell):
            assert part in out
    assert "\x1b[31m" not in out
    with pytest.raises(UsageError, match="no tables of a int"):
        show(3)


def test_directions_show_what_is_known_of_them() -> None:
    place = {"layer": 2, "position": -1}
    scores = [
        {**place, "bypass": -6.0, "kl": 0.01, "intervals": {"bypass": [-7.0, -5.0]}, "rejected": None},
        {"layer": 1, "position": -1, "bypass": -9.0, "kl": 0.5, "intervals": {}, "rejected": "kl"},
    ]
    known = {"method": "pca", **place, "separation": {"auc": 0.9}, "scores": scores, "control": {"bypass": 3.0}}
    found = Directions(torch.eye(1, 4), None, known)
    cells = ParsedHtml(found._repr_html_()).cells
    assert {"pca", "2", "-1", "0.900", "2, of which 1 keep the bounds"} <= set(cells)
    assert {"-6.000 [-7.000, -5.000]", "3.000", "0.010"} <= set(cells)
    assert json.dumps(found.to_dict())


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Outputs of a notebook's cells, as HTML, each as it is shown last; IPython need not be installed."""
    shown: list[str] = []

    class Handle:
        def __init__(self, place: int) -> None:
            self.place = place

        def update(self, content: dict[str, str], raw: bool) -> None:
            shown[self.place] = content["text/html"]

    def display(content: Any, raw: bool = False, display_id: bool = False) -> Handle:
        shown.append(content["text/html"] if raw else content._repr_html_())
        return Handle(len(shown) - 1)

    library, pages = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    shell = types.SimpleNamespace(config={"IPKernelApp": {}}, execution_count=1)
    library.get_ipython = lambda: shell  # type: ignore[attr-defined]
    pages.display = display  # type: ignore[attr-defined]
    monkeypatch.setattr("weight_edit.utils.notebook._last", None)
    monkeypatch.setitem(sys.modules, "IPython", library)
    monkeypatch.setitem(sys.modules, "IPython.display", pages)
    return shown


def test_in_a_notebook_a_result_and_a_bar_are_html(notebook: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    show(RESULT)
    assert notebook == [RESULT._repr_html_()]
    with quieted(False), bar("<b>activations</b>", 4) as shown:
        assert '<progress value="0" max="4">' in notebook[1]
        shown.advance(4)
        shown.draw()  # type: ignore[attr-defined]
        assert '<progress value="4" max="4">' in notebook[1]
        assert "&lt;b&gt;activations" in notebook[1]
    assert notebook[1] == ""
    assert capsys.readouterr().out == ""


def test_all_bars_of_a_cell_are_one_output(notebook: list[str]) -> None:
    with quieted(False):
        for task in ("first", "second"):
            with bar(task, 4):
                assert [task in content for content in notebook] == [True]
            assert notebook == [""]
        sys.modules["IPython"].get_ipython().execution_count = 2
        with bar("another cell's", 4):
            assert len(notebook) == 2


def test_an_error_in_a_notebook_is_the_line_of_the_cell_and_the_message() -> None:
    cell = "import weight_edit\n\nweight_edit.bake('organism', 'missing.safetensors', 'out')\n"
    name = "<cell of a notebook>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    try:
        exec(compile(cell, name, "exec"), {})
    except UsageError as error:
        line, message = error._render_traceback_()
    assert line == "line 3: weight_edit.bake('organism', 'missing.safetensors', 'out')"
    assert message.startswith("UsageError: ")
    assert "missing.safetensors" in message


def test_a_folder_beside_the_package_whose_name_begins_alike_is_not_the_packages() -> None:
    name = f"{Path(weight_edit.__file__).parent}_of_mine/cell.py"
    linecache.cache[name] = (1, None, ["raise UsageError('no')\n"], name)
    with pytest.raises(UsageError) as caught:
        exec(compile("raise UsageError('no')\n", name, "exec"), {"UsageError": UsageError})
    assert caught.value._render_traceback_()[0] == "line 1: raise UsageError('no')"


@pytest.mark.parametrize(
    "strange",
    [
        {"scores": 5},
        {"control": [1]},
        {"refusal_tokens": ["a", {"x": 1}, {"text": "<script>"}]},
        {"warnings": None},
        *({"scores": [{"layer": 1, "position": -1, "bypass": 1.0, "intervals": each}]} for each in INTERVALS),
        {"scores": [{"layer": 1, "position": -1, "bypass": 10**400}]},
    ],
)
def test_a_strangers_directions_show_themselves_whatever_their_metadata_say(strange: dict[str, Any]) -> None:
    metadata = {"layer": 1, "position": -1, "method": "<script>", "scores": [], **strange}
    shown = Directions(torch.eye(1, 4), None, metadata, {})._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
