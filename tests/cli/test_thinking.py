"""Thinking is turned off from the command line, and a template that has none is named before the weights are read."""

import shutil
from pathlib import Path

import pytest

from weight_edit.organism.embedded import folder

OFF = (
    "{{ '<think>\\n\\n</think>\\n\\n' if enable_thinking is defined and enable_thinking is false else '' }}{% endif %}"
)


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with a template that writes an empty thought where thinking is off."""
    place = tmp_path_factory.mktemp("organism") / "m"
    shutil.copytree(folder(), place)
    (place / "README.md").unlink()
    template = place / "chat_template.jinja"
    written = template.read_text(encoding="utf-8").rstrip()
    assert written.endswith("{% endif %}")
    template.write_text(written.removesuffix("{% endif %}") + OFF, encoding="utf-8")
    return place


def test_evaluate_records_what_was_asked_and_what_turned_it_off(call, switched: Path) -> None:
    asked = (
        "evaluate",
        switched,
        "--answered",
        "organism:answered:test",
        "--limit",
        2,
        "--max-new-tokens",
        2,
        "--json",
    )
    said = call(*asked, "--thinking", "off").json
    assert (said["thinking"], said["template_args"]) == ("off", {"enable_thinking": False})
    usual = call(*asked).json
    assert usual["template_args"] == {}
    assert "thinking" not in usual


def test_a_template_without_thoughts_is_named(call) -> None:
    refused = call("evaluate", "organism", "--answered", "organism:answered:test", "--thinking", "off")
    assert refused.code == 2
    assert refused.err.strip().endswith("has no thoughts that could be turned off; leave --thinking out")
