"""The table of candidates says no lower end of a divergence below 0."""

import io

from rich.console import Console

from weight_edit.cli.tables.results import rejected


def test_a_divergence_whose_interval_reaches_0_has_its_upper_end() -> None:
    def shown(kl: list[float]) -> str:
        row = {"layer": 3, "position": -1, "bypass": -6.0, "induce": 4.0, "kl": 0.05, "prompts": 32, "rejected": "why"}
        console = Console(file=io.StringIO(), width=80)
        rejected({"scores": [{**row, "intervals": {"bypass": [-7.0, -5.0], "kl": kl}}]}, console)
        return console.file.getvalue()

    assert "≤0.0800" in shown([0.0, 0.08])
    assert "its upper end" in shown([0.0, 0.08])
    assert "±0.0300" in shown([0.02, 0.08])
    assert "≤" not in shown([0.02, 0.08])
