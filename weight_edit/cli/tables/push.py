"""The result of a push: what was sent where."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.publish.push import PushResult


def push_result(result: "PushResult", console: "Console") -> None:
    """Print the files of a push, and what became of them."""
    from weight_edit.checkpoint.files import printable

    for name, size in sorted(result.files.items()):
        there = "  (there already)" if result.url and name not in result.sent else ""
        console.print(f"{size:>14,}  {printable(name)}{there}", markup=False, highlight=False)
    for what, names in (("not sent", result.skipped), ("there besides", result.others)):
        if names:
            console.print(f"{what}: {', '.join(map(printable, names))}", markup=False, highlight=False)
    for line in _outcome(result):
        # An address that is broken over two lines is none.
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _outcome(result: "PushResult") -> list[str]:
    if result.url is None:
        return [f"dry run: verified, nothing was sent to {result.repo_id}"]
    where = f"{result.ref} of {result.repo_id} ({'private' if result.private else 'public'})"
    if not result.sent:
        return [f"nothing was sent: {where} has all of it", f"as of: {result.url}"]
    lines = [f"pushed {len(result.sent)} of {len(result.files)} files to {where}: {result.url}"]
    if result.pull_request is not None:
        lines.append(f"pull request {result.pull_request.number}: {result.pull_request.url}")
    return lines
