"""Registries of functions by name, each with settings: finders, edits and studies.

Adding one is adding one file to a folder, with a function `(given, options)` under a decorator that names it. The
annotation of `options` is its settings: a `Section`, whose fields have defaults.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_type_hints

from weight_edit.utils.names import check_known
from weight_edit.utils.papers import arxiv_ids
from weight_edit.utils.settings import Section, validated

Result = TypeVar("Result")
Function = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Named(Generic[Result]):
    """A registered function with its settings.

    Attributes:
        what: of what kind it is, for messages: "edit".
        name: what the command line and recipes call it.
        summary: the first line of its docstring.
        options: its settings.
        function: what does it.
        papers: arXiv ids of the papers that it follows.
        aliases: other names that it answers to.
    """

    what: str
    name: str
    summary: str
    options: type[Section]
    function: Callable[..., Result]
    papers: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def __call__(self, given: Any, options: Mapping[str, Any] | None = None) -> Result:
        """Call the function with options, which are validated first.

        Raises:
            UsageError: an option that it does not have, or a wrong value of one.
        """
        return self.function(given, self.settings(options or {}))

    def settings(self, options: Mapping[str, Any]) -> Section:
        """The validated settings."""
        return validated(self.options, options, f"{self.what} {self.name}")


Kind = TypeVar("Kind", bound=Named[Any])


@dataclass(kw_only=True)
class Registry(Generic[Kind]):
    """The registered functions of one kind.

    Attributes:
        what: what one of them is called, for messages.
        package: the folder that they lie in, as a module.
        kind: of `Named`.
    """

    what: str
    package: str
    kind: type[Kind]
    _known: dict[str, Kind] = field(default_factory=dict, init=False, repr=False)
    _aliases: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _imported: bool = field(default=False, init=False, repr=False)

    def register(
        self, name: str, *, paper: str | None = None, aliases: tuple[str, ...] = (), **facts: Any
    ) -> Callable[[Function], Function]:
        """A decorator that registers a function under a name.

        Args:
            paper: the arXiv id of what it follows; several are separated by commas.
            aliases: other names that it answers to, which no list shows as ones of their own.
            facts: further attributes of its `Named`.

        Raises:
            ValueError: a paper that is no arXiv id, or a name that is taken.
        """
        papers = arxiv_ids(paper)

        def put(function: Function) -> Function:
            taken = {*self._known, *self._aliases}
            for one in (name, *aliases):
                if one in taken:
                    raise ValueError(f"there are two of the {self.what} {one!r}")
            summary = (inspect.getdoc(function) or name).splitlines()[0]
            options = get_type_hints(function)["options"]
            named = self.kind(
                what=self.what,
                name=name,
                summary=summary,
                options=options,
                function=function,
                papers=papers,
                aliases=aliases,
                **facts,
            )
            self._known[name] = named
            self._aliases |= dict.fromkeys(aliases, name)
            return function

        return put

    def all(self) -> dict[str, Kind]:
        """All functions by name, sorted; the first call imports the folder."""
        if not self._imported:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._imported = True
        return dict(sorted(self._known.items()))

    def named(self, name: str) -> Kind:
        """The function of a name or alias.

        Raises:
            UsageError: there is none of that name; with the nearest and the names there are.
        """
        known = self.all()
        name = self._aliases.get(name, name)
        check_known(self.what, name, known)
        return known[name]
