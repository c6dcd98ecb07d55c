"""`evaluate` on the command line: broken templates and full disks in one line."""

import shutil
from pathlib import Path

import pytest

from tests.helpers.families import save_family
from weight_edit.organism.embedded import folder


@pytest.mark.parametrize("template", ["{{ 1/0 }}", "{{ messages + 1 }}", "{{ messages[9].content }}", "{% for %}"])
def test_a_broken_chat_template_is_one_line(call, template: str, tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "m")
    for path in (tmp_path / "m/chat_template.jinja",):
        path.write_text(template, encoding="utf-8")
    result = call("evaluate", tmp_path / "m", "--answered", "organism:answered:test", "--limit", 2)
    assert result.code == 2
    assert "chat template" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_full_disk_is_one_line(call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("weight_edit.evaluation.evaluate.write_answers", full)
    args = ("--answered", "organism:answered", "--limit", 2, "--max-new-tokens", 2)
    result = call("evaluate", "organism", *args, "--answers", tmp_path / "a.jsonl")
    assert result.code == 2
    assert "No space left" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_model_without_chat_template_says_what_to_do(call, tmp_path: Path) -> None:
    from tests.helpers.small_tokenizer import word_tokenizer

    save_family("gpt2", tmp_path / "m")
    tokenizer = word_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "m")
    args = ("evaluate", tmp_path / "m", "--answered", "organism:answered", "--limit", 2, "--max-new-tokens", 4)
    result = call(*args)
    assert result.code == 2
    assert "plain" in result.err
    assert call(*args, "--template", "plain").code == 0


def test_judges_are_named_on_the_command_line(call) -> None:
    args = ("evaluate", "organism", "--refused", "organism:refused:test", "--limit", 2, "--max-new-tokens", 12)
    shown = call(*args, "--judge", "published", "--judge", "phrases,early=20", "--json").json
    assert shown["judge"] == "published"
    assert list(shown["sets"]["refused"]["judges"]) == ["published", "phrases,early=20"]
    for wrong in ("strict", "phrases,early", "phrases,late=3"):
        result = call(*args, "--judge", wrong)
        assert result.code == 2
        assert "Traceback" not in result.err
        assert len(result.err.strip().splitlines()) == 1
    assert "--judge phrases,early: write key=value" in " ".join(call(*args, "--judge", "phrases,early").err.split())
