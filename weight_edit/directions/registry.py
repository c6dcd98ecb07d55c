"""The registry of finders: each is one file in `finders/` with `@finder("its-name")`."""

from collections.abc import Callable
from dataclasses import dataclass

from weight_edit.directions.candidate import Candidate
from weight_edit.errors import UnsupportedError
from weight_edit.utils.registry import Function, Named, Registry


@dataclass(frozen=True, kw_only=True)
class Finder(Named[list[Candidate]]):
    """A finder: `function(problem, options)` returns candidates, positions first, then layers.

    Attributes:
        select: how the best of its candidates is chosen by default, see `selection.BY`.
        induces: whether adding its directions should bring the behaviour about, so that the bound on it makes sense.
        everywhere: whether it looks at every layer alike, so that its candidates do not depend on which may be chosen.
        gradients: whether it needs the model's gradients, which are there in memory alone.
    """

    select: str = "bypass"
    induces: bool = True
    everywhere: bool = False
    gradients: bool = False

    def check_offload(self, offload: bool) -> None:
        """Refuse a model on disk where the method needs gradients.

        Raises:
            UnsupportedError: names the method.
        """
        if offload and self.gradients:
            raise UnsupportedError(
                f"method {self.name} needs gradients, and so the model in memory; leave `offload` out, or use another "
                "method",
                option=("offload", "method"),
            )


FINDERS = Registry(what="method", package="weight_edit.directions.finders", kind=Finder)


def finder(
    name: str,
    *,
    paper: str | None = None,
    aliases: tuple[str, ...] = (),
    select: str = "bypass",
    induces: bool = True,
    everywhere: bool = False,
    gradients: bool = False,
) -> Callable[[Function], Function]:
    """Register `function(problem, options)` as a finder, by its name for `--method`."""
    return FINDERS.register(
        name,
        paper=paper,
        aliases=aliases,
        select=select,
        induces=induces,
        everywhere=everywhere,
        gradients=gradients,
    )


finders, finder_named = FINDERS.all, FINDERS.named
