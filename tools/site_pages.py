"""What the site has besides docs/: the repository's own pages, with links that hold on the site too.

A hook of mkdocs (`hooks` in mkdocs.yml). The README is the site's first page. A link to a file that the site does not
have, such as a module, becomes its text: the site does not know where the repository lies.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

_SAME = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "recipes/README.md")
REPOSITORY = {"README.md": "index.md", **{name: name for name in _SAME}}
"""Pages outside of docs/ -> their place on the site."""

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
IMAGE = re.compile(r"(!\[[^\]]*\])\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the repository's pages, and the recipes as files to download."""
    from mkdocs.structure.files import File

    recipes = {str(path.relative_to(ROOT)): str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("recipes/*.yaml"))}
    for name, place in (REPOSITORY | recipes).items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = page.file.src_uri
    known = {place: name for name, place in REPOSITORY.items()}
    return with_links_of_the_site(markdown, known.get(here, f"docs/{here}"), here, set(files.src_uris))


def with_links_of_the_site(markdown: str, file: str, here: str, there: set[str]) -> str:
    """A page's text with its links as they hold on the site.

    Args:
        file: the page's path in the repository.
        here: its place on the site.
        there: all places on the site.
    """

    def place(link: str) -> str | None:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), link))
        found = REPOSITORY.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(found, posixpath.dirname(here)) if found in there else None

    def link(match: re.Match[str]) -> str:
        text, path, anchor = match[1], match[2], match[3] or ""
        if path.startswith("https://"):
            return match[0]
        found = place(path)
        return f"[{text}]({found}{anchor})" if found else text

    def image(match: re.Match[str]) -> str:
        return f"{match[1]}({place(match[2]) or match[2]})"

    return IMAGE.sub(image, LINK.sub(link, markdown))
