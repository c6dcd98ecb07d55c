"""A report that was written, on a terminal."""

from typing import TYPE_CHECKING

from rich.console import Console

from weight_edit.cli.tables.results import safe

if TYPE_CHECKING:
    from weight_edit.report.report import ReportResult


def report_result(result: "ReportResult", console: Console) -> None:
    """Print where the page is, and its pictures."""
    console.print(f"{safe(str(result.path))}: {result.size / 1e6:.1f} MB, open it in a browser; it loads nothing")
    if result.figures:
        place = safe(str(result.figures[0].parent))
        console.print(f"{place}: {len(result.figures) // 2} pictures, each as SVG and PNG")
