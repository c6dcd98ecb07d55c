"""Functions by name: the papers that they follow and their aliases, as registered and as read from the source."""

import pytest

from weight_edit.directions.registry import finder_named, finders
from weight_edit.edits.registry import edit, edit_kinds, edit_named
from weight_edit.errors import UsageError
from weight_edit.studies.registry import studies
from weight_edit.utils.papers import arxiv_ids
from weight_edit.utils.registry_listing import as_help, canonical, registered

KINDS = [
    ("directions/finders", "finder", finders),
    ("edits/kinds", "edit", edit_kinds),
    ("studies/kinds", "study", studies),
]


@pytest.mark.parametrize(("folder", "decorator", "all_of_them"), KINDS)
def test_papers_and_aliases_are_read_from_the_source_as_they_are_registered(folder, decorator, all_of_them):
    known = all_of_them()
    listed = registered(folder, decorator)
    assert {name: (one.papers, one.aliases) for name, one in listed.items()} == {
        name: (one.papers, one.aliases) for name, one in known.items()
    }
    assert any(one.papers for one in known.values())
    told = as_help("All", listed)
    for name, one in known.items():
        assert "arXiv" not in one.summary
        assert all(f"arXiv {paper}" in told for paper in one.papers), name


def test_help_shows_the_paper_behind_the_name():
    told = as_help("Methods", registered("directions/finders", "finder"))
    assert "- **inlp** (arXiv 2606.13720): Iterative nullspace projection" in told
    assert "- **gradient** (or rdo; arXiv 2502.17420): " in told
    assert "- **random**: " in told
    assert edit_named("erase").papers == finder_named("leace").papers == ("2306.03819",)


def test_several_papers_are_separated_by_commas():
    assert arxiv_ids("2406.11717, 0704.0001") == ("2406.11717", "0704.0001")
    assert arxiv_ids(None) == ()


@pytest.mark.parametrize("paper", ["", "arXiv 2406.11717", "2413.11717", "2406.117", "2406.11717,", "2406.11717v2"])
def test_what_is_no_arxiv_id_is_refused_where_it_is_registered(paper):
    with pytest.raises(ValueError, match="no arXiv id"):
        edit("soften", paper=paper)
    assert "soften" not in edit_kinds()


def test_an_alias_is_another_name_of_the_same_and_no_entry_of_its_own():
    assert finder_named("rdo") is finder_named("gradient")
    assert finder_named("rdo").name == "gradient"
    assert "rdo" not in finders()
    known = registered("directions/finders", "finder")
    assert canonical("rdo", known) == canonical("gradient", known) == "gradient"
    assert canonical("rod", known) == "rod"
    with pytest.raises(UsageError, match="there is no method 'rod'"):
        finder_named("rod")
