"""A stack's answer is held to its form, and a stack that does not end is ended."""

import fcntl
import json
import time
from pathlib import Path

import pytest
from stacks import replies as asking
from stacks.environment import Stack
from stacks.replies import Asked, Prompts, StackError, replies

STEP = [[7, -0.1], [8, -2.0]]
PROMPTS = Prompts(texts=["a", "b"], ids=[[1], [2]], new_tokens=2)
GOOD = {"tokens": [7, 7], "top": [STEP, STEP]}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    monkeypatch.setattr(asking, "SCRIPTS", tmp_path)
    return Stack(name="ours", title="Ours", loads="nothing", of_package=True)


def script(folder: Path, *lines: str) -> None:
    text = "\n".join(["import json, subprocess, sys", *lines])
    (folder / "run_ours.py").write_text(text, encoding="utf-8")


def answer(folder: Path, *answers: object) -> None:
    script(folder, f"open(sys.argv[2], 'w').write({json.dumps(answers)!r})")


def test_a_reply_to_each_prompt_is_taken(stack: Stack, tmp_path: Path) -> None:
    answer(tmp_path, {"replies": [GOOD, {"tokens": [7], "top": [None]}]})
    (found,) = replies(stack, [Asked(tmp_path)], PROMPTS)
    assert not isinstance(found, StackError)
    assert [list(each.tokens) for each in found] == [[7, 7], [7]]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ([GOOD], "1 replies to 2 prompts"),
        ([GOOD, {"tokens": [7, 7], "top": []}], "2 tokens, and probabilities at 0 places"),
        ([GOOD, {"tokens": [7, 7], "top": [STEP, STEP[:1]]}], "another number of probabilities"),
        ([GOOD, {"tokens": [7] * 3, "top": [STEP] * 3}], "3 tokens where 2 were asked for"),
    ],
)
def test_another_form_is_an_error_of_that_model_alone(
    stack: Stack, tmp_path: Path, broken: list[object], said: str
) -> None:
    answer(tmp_path, {"replies": broken}, {"replies": [GOOD, GOOD]})
    first, second = replies(stack, [Asked(tmp_path)] * 2, PROMPTS)
    assert isinstance(first, StackError)
    assert said in str(first)
    assert not isinstance(second, StackError)


def test_what_does_not_end_is_ended_with_all_that_it_started(stack: Stack, tmp_path: Path) -> None:
    lock, ready = tmp_path / "lock", tmp_path / "ready"
    child = (
        f"import fcntl, pathlib, time; held = open({str(lock)!r}, 'w'); fcntl.flock(held, fcntl.LOCK_EX); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    script(
        tmp_path,
        f"open(sys.argv[2], 'w').write({json.dumps([{'replies': [GOOD, GOOD]}])!r})",
        f"subprocess.run([sys.executable, '-c', {child!r}])",
    )
    first, second = replies(stack, [Asked(tmp_path)] * 2, PROMPTS, limit=1.25)
    assert not isinstance(first, StackError), "what was answered before is kept"
    assert isinstance(second, StackError)
    assert "no answer within 2 s" in str(second)
    assert ready.exists()
    with lock.open() as held:
        # A process that lives would keep it for a minute.
        assert _is_free(held.fileno())


def _is_free(lock: int) -> bool:
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
