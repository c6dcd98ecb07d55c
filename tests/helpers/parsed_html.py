"""HTML as its reader has it: elements with their attributes, what is read, and the cells of tables."""

from html.parser import HTMLParser


class ParsedHtml(HTMLParser):
    """The elements and texts of a page, or of a piece of one.

    Attributes:
        tags: each element's name and attributes, in order.
        texts: what stands between tags; neither scripts nor styles.
        cells: the text of each `td`.
    """

    def __init__(self, said: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self._inside: list[str] = []
        self.feed(said)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._inside):
            self.texts.append(data)
        if "td" in self._inside:
            self.cells[-1] += data

    @property
    def text(self) -> str:
        """What is read, on one line."""
        return " ".join(" ".join(self.texts).split())

    @property
    def names(self) -> set[str]:
        """The elements that occur."""
        return {tag for tag, _ in self.tags}

    @property
    def handlers(self) -> list[str]:
        """Attributes that would run a script."""
        return [name for _, attributes in self.tags for name in attributes if name.startswith("on")]
