"""The page of costs: its table is what the tool makes of the shapes, and says what their publishers do."""

from pathlib import Path

import costs_page
import pytest

from weight_edit.tables.amounts import amount, count


def test_the_first_row_is_up_to_date(tmp_path: Path) -> None:
    page = costs_page.PAGE.read_text(encoding="utf-8")
    folder = costs_page.write_configs(tmp_path)["Llama-3-8B"]
    inside, outside = (costs_page.planned(folder, offload=offload) for offload in (False, True))
    assert costs_page.row("Llama-3-8B", inside, outside) in page.splitlines(), "run python tools/costs_page.py"
    assert inside.size.parameters == 8_030_261_248
    assert inside.size.checkpoint_bytes == 16_060_522_496


def test_every_shape_has_a_row_and_the_command_is_shown() -> None:
    page = costs_page.PAGE.read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| model")]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == list(costs_page.SHAPES)
    assert f"$ weight-edit plan {costs_page.SHOWN} --offload --device cuda --flops 4e14 --disk-rate 3e9" in page


@pytest.mark.parametrize(
    ("number", "text", "parameters"),
    [(999.6, "1 k", "1k"), (70_553_706_496, "70.6 G", "70.6B"), (134_515_008, "135 M", "135M"), (12, "12", "12")],
)
def test_amounts_have_three_digits(number: float, text: str, parameters: str) -> None:
    assert amount(number) == text
    assert count(int(number) if number > 1000 else round(number)) == parameters
