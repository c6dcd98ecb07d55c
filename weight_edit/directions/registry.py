"""The registry of finders: each is one file in `finders/` with `@finder("its-name")`."""

from collections.abc import Callable
from dataclasses import dataclass

from weight_edit.directions.candidate import Candidate
from weight_edit.utils.registry import Function, Named, Registry


@dataclass(frozen=True, kw_only=True)
class Finder(Named[list[Candidate]]):
    """A finder: `function(problem, options)` returns candidates, positions first, then layers.

    Attributes:
        select: how the best of its candidates is chosen by default, see `selection.BY`.
        induces: whether adding its directions should bring the behaviour about, so that the bound on it makes sense.
        everywhere: whether it looks at every layer alike, so that its candidates do not depend on which may be chosen.
    """

    select: str = "bypass"
    induces: bool = True
    everywhere: bool = False


FINDERS = Registry(what="method", package="weight_edit.directions.finders", kind=Finder)


def finder(
    name: str,
    *,
    paper: str | None = None,
    aliases: tuple[str, ...] = (),
    select: str = "bypass",
    induces: bool = True,
    everywhere: bool = False,
) -> Callable[[Function], Function]:
    """Register `function(problem, options)` as a finder, by its name for `--method`."""
    return FINDERS.register(name, paper=paper, aliases=aliases, select=select, induces=induces, everywhere=everywhere)


finders, finder_named = FINDERS.all, FINDERS.named
