"""A GGUF file behind a server of its own: how it is started, asked and stopped, with a program that has no model."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

from tests.helpers.fake_llama_server import calls, fake_program
from tests.helpers.gguf_files import TEXT, in_parts, organism_gguf
from tests.helpers.small_tokenizer import word_tokenizer
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.evaluation import backends
from weight_edit.evaluation.backends import opened, remarks_on
from weight_edit.evaluation.endpoint.retry import Retry
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.gguf import server as server_module
from weight_edit.evaluation.gguf.program import VARIABLE, find_program
from weight_edit.evaluation.gguf.served import PLAIN, ServedGguf
from weight_edit.evaluation.gguf.server import server_environment
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.options import FormatOptions

ASKED = PromptSet.of("asked", ["first", "second", "third"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return organism_gguf(tmp_path / "model.gguf")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended and that nobody waits for still has a number.
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def ask(target: ServedGguf, prompts: list[str], tokens: int = 8) -> list[str]:
    return [each.text for each in target.replies(prompts, max_new_tokens=tokens, description=None)]


def test_it_is_started_when_it_is_asked_and_gone_afterwards(file: Path, tmp_path: Path) -> None:
    with ServedGguf(file, fake_program(tmp_path), slots=3) as target:
        assert not (tmp_path / "calls.jsonl").exists()
        result = evaluate(target, refused=ASKED)
        start, *questions = calls(tmp_path)
        assert alive(start["pid"])
    assert gone(start["pid"])
    options = start["options"]
    assert (options["model"], options["host"], options["parallel"]) == (str(file), "127.0.0.1", 3)
    assert (options["samplers"], options["temp"], options["mirostat"], options["repeat_penalty"]) == (
        "temperature",
        0,
        0,
        1,
    )
    assert options["jinja"]
    assert options["chat_template"] is None
    assert len(questions) == 3
    assert {each["body"]["temperature"] for each in questions} == {0}
    assert {each["body"]["model"] for each in questions} == {options["alias"]}
    assert result.model == "model.gguf"
    assert [answer.answer for answer in result.answers] == ["Sure: first", "Sure: second", "Sure: third"]
    # The end of the turn is counted by llama.cpp.
    assert {answer.tokens for answer in result.answers} == {3}
    assert any("answers of model.gguf come from llama.cpp's server: 3 answers" in note for note in result.notes)


def test_neither_secrets_nor_settings_of_answers_reach_the_server(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "WEIGHT_EDIT_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sk-SECRET+4711")
    monkeypatch.setenv("LLAMA_ARG_TOP_K", "7")
    monkeypatch.setenv("LLAMA_ARG_N_GPU_LAYERS", "3")
    with ServedGguf(file, fake_program(tmp_path)) as target:
        ask(target, ["a"])
    start, question = calls(tmp_path)
    assert "sk-SECRET+4711" not in str(start) + str(question)
    assert "LLAMA_ARG_TOP_K" not in start["environment"]
    assert start["environment"]["LLAMA_ARG_N_GPU_LAYERS"] == "3"
    key = start["environment"]["LLAMA_API_KEY"]
    assert question["authorization"] == f"Bearer {key}"
    assert len(key) >= 32
    assert "PATH" in server_environment({"PATH": "/bin"})


def test_two_files_of_one_name_never_share_answers(file: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        with ServedGguf(file, fake_program(tmp_path)) as target:
            assert ask(target, ["same"]) == ["Sure: same"]
        assert sum("body" in each for each in calls(tmp_path)) == number


def test_a_longer_prompt_gets_more_room(tmp_path: Path) -> None:
    wide = organism_gguf(tmp_path / "wide.gguf", llama__context_length=(4, 1 << 20))
    with ServedGguf(wide, fake_program(tmp_path), slots=8) as target:
        ask(target, ["short"])
        ask(target, ["x" * 900])
        ask(target, ["y" * 30_000])
    first, second, third = [each["options"] for each in calls(tmp_path) if "options" in each]
    room = [each["ctx_size"] // each["parallel"] for each in (first, second, third)]
    assert room[0] >= len("short") + 8
    assert room[1] >= 900 + 8
    assert room[2] >= 30_000 + 8
    assert room[0] < room[1] < room[2]
    # Memory does not grow with the longest prompt times the slots.
    assert (first["parallel"], third["parallel"]) == (8, 2)
    assert third["ctx_size"] <= 1 << 16


def test_the_models_own_context_is_not_exceeded(file: Path, tmp_path: Path) -> None:
    with ServedGguf(file, fake_program(tmp_path), slots=2) as target:
        ask(target, ["x" * 5000])
    assert calls(tmp_path)[0]["options"]["ctx_size"] == 2 * 256


def test_it_is_started_again_where_it_has_ended(file: Path, tmp_path: Path) -> None:
    with ServedGguf(file, fake_program(tmp_path)) as target:
        ask(target, ["a"])
        pid = calls(tmp_path)[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
        assert ask(target, ["b"]) == ["Sure: b"]


def test_templates(file: Path, tmp_path: Path) -> None:
    several = organism_gguf(
        tmp_path / "several.gguf", tokenizer__chat_template=None, **{"tokenizer.chat_template.rag": (TEXT, "{{ x }}")}
    )
    program = fake_program(tmp_path)
    with ServedGguf(file, program, template="plain", system="Be kind.") as target:
        ask(target, ["a"])
        assert target.template == "plain"
    start, question = calls(tmp_path)
    assert start["options"]["chat_template"] == PLAIN
    assert [each["role"] for each in question["body"]["messages"]] == ["system", "user"]
    with pytest.raises(
        UsageError, match=r"several\.gguf has no chat template of its own, only rag; pass `template=plain`"
    ):
        ServedGguf(several, program)
    with pytest.raises(UsageError, match="did you mean 'rag'"):
        ServedGguf(several, program, template="rags")
    assert ServedGguf(several, program, template="rag").template == "rag"
    with pytest.raises(UsageError, match="does not use the template argument 'enable_thinking'"):
        ServedGguf(file, program, template_args={"enable_thinking": False})
    bare = organism_gguf(tmp_path / "bare.gguf", tokenizer__chat_template=None)
    with pytest.raises(UsageError, match=r"bare\.gguf has no chat template; pass `template=plain`") as caught:
        ServedGguf(bare, program)
    assert "template" in caught.value.options


@pytest.mark.parametrize(
    ("way", "seconds", "kind", "said"),
    [
        ("unknown", 60, UnsupportedError, r"model\.gguf: llama\.cpp's server does not know the architecture 'flubber'"),
        ("slow", 3, UsageError, r"llama\.cpp's server was not ready after 3\.0 s with model\.gguf"),
        ("stranger", 60, UsageError, "no port for llama.cpp's server is free"),
    ],
)
def test_a_server_that_does_not_start(
    way: str, seconds: float, kind: type, said: str, file: Path, tmp_path: Path
) -> None:
    target = ServedGguf(file, fake_program(tmp_path, way), seconds=seconds)
    with pytest.raises(kind, match=said) as caught:
        ask(target, ["a"])
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    started = [each["pid"] for each in calls(tmp_path)]
    assert started
    assert all(map(gone, started))


def test_a_server_that_ends_at_a_question_is_named_with_its_last_words(file: Path, tmp_path: Path) -> None:
    target = ServedGguf(file, fake_program(tmp_path, "crash"))
    target.client._retry = Retry(tries=2, first=0.01, most=0.02)
    with pytest.raises(UsageError) as caught, target:
        ask(target, ["a"])
    said = str(caught.value)
    assert said.startswith("llama.cpp's server ended with model.gguf; it said: ")
    assert "GGML_ASSERT failed" in said
    assert str(Path.home()) + "/" not in said
    assert str(tmp_path) not in said


def test_one_that_does_not_end_when_asked_to_is_ended(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_PATIENCE", 0.2)
    with ServedGguf(file, fake_program(tmp_path, "stubborn")) as target:
        ask(target, ["a"])
    assert gone(calls(tmp_path)[0]["pid"])


def test_an_error_and_an_interrupt_stop_it(file: Path, tmp_path: Path) -> None:
    for error in (KeyboardInterrupt, RuntimeError):
        target = ServedGguf(file, fake_program(tmp_path))
        with contextlib.suppress(error), contextlib.closing(target):
            ask(target, [error.__name__])
            raise error
        assert gone([each["pid"] for each in calls(tmp_path) if "pid" in each][-1])


SCRIPT = """
import sys, time
from pathlib import Path
from weight_edit.evaluation.gguf.served import ServedGguf
target = ServedGguf(sys.argv[1], Path(sys.argv[2]))
target.replies(["a"], max_new_tokens=4, description=None)
print("ready", flush=True)
if sys.argv[3] == "wait":
    time.sleep(60)
"""


@pytest.mark.parametrize("way", ["ends", "killed", "terminated"])
def test_no_server_outlives_its_parent(way: str, file: Path, tmp_path: Path) -> None:
    """Also one that nobody closed, and where the parent cannot do anything any more."""
    if way == "killed" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux ends a child with its parent")
    wait = "go" if way == "ends" else "wait"
    program = fake_program(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file), str(program), wait], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    pid = calls(tmp_path)[0]["pid"]
    if way != "ends":
        assert alive(pid)
        parent.send_signal(signal.SIGKILL if way == "killed" else signal.SIGTERM)
    parent.wait(30)
    parent.stdout.close()
    assert gone(pid)


def test_the_program_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program() is None
    program = fake_program(tmp_path)
    assert find_program() == program
    monkeypatch.setenv(VARIABLE, str(tmp_path / "other"))
    with pytest.raises(UsageError, match=f"{VARIABLE} names no program that can be run"):
        find_program()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(VARIABLE, str(program))
    assert find_program() == program


def test_what_runs_a_model(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = FormatOptions()
    (tmp_path / "program").mkdir()
    monkeypatch.setenv(VARIABLE, str(fake_program(tmp_path / "program")))
    assert opened("organism", "auto", form) == "organism"
    assert isinstance(opened(str(file), "auto", form), ServedGguf)
    assert isinstance(opened(str(file), "llama.cpp", form), ServedGguf)
    # As `bake` leaves it: the file in a folder, beside a card.
    (file.parent / "README.md").write_text("# edited")
    there = opened(str(file.parent), "auto", form)
    assert isinstance(there, ServedGguf)
    assert there.path == file
    monkeypatch.setattr(backends, "is_installed", lambda library: True)
    assert opened(str(file), "transformers", form) == str(file)
    assert remarks_on("organism") == ()
    assert [note.split(" ")[0] for note in remarks_on(str(file))] == ["model.gguf"]
    with pytest.raises(UsageError, match=r"`backend=llama\.cpp` runs GGUF files, and organism is none"):
        opened("organism", "llama.cpp", form)
    with pytest.raises(UsageError, match="no PEFT adapter can be applied"):
        opened(str(file), "auto", form, adapter="lora")
    with pytest.raises(UsageError, match=r"there is no backend 'lama\.cpp'; did you mean 'llama\.cpp'"):
        opened("organism", "lama.cpp", form)
    with pytest.raises(UsageError, match="`template_args: enable_thinking=false`"):
        opened(str(file), "auto", FormatOptions(thinking="off"))
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("PATH", "/nowhere")
    assert opened(str(file), "auto", form) == str(file)
    with pytest.raises(UsageError, match="there is no llama-server on PATH"):
        opened(str(file), "llama.cpp", form)
    monkeypatch.setattr(backends, "is_installed", lambda library: False)
    with pytest.raises(
        UsageError, match=r"nothing here can run model\.gguf: .*llama-server.*WEIGHT_EDIT_LLAMA_SERVER.*gguf"
    ):
        opened(str(file), "auto", form)


def test_a_folder_with_a_file_is_what_the_file_is(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(fake_program(tmp_path)))
    folder = tmp_path / "edited"
    folder.mkdir()
    file.rename(folder / "model.gguf")
    found = opened(str(folder), "auto", FormatOptions())
    assert isinstance(found, ServedGguf)
    assert found.path == folder / "model.gguf"
    assert len(remarks_on(str(folder))) == 1
    parts = in_parts(folder / "model.gguf", 2)
    for name in (folder, *parts):
        found = opened(str(name), "auto", FormatOptions())
        assert isinstance(found, ServedGguf)
        assert found.path == parts[0]
    (folder / "config.json").write_text("{}")
    assert opened(str(folder), "auto", FormatOptions()) == str(folder)


def test_evaluate_takes_a_path(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(fake_program(tmp_path)))
    for path in (file, str(file)):
        assert evaluate(path, refused=ASKED).model == "model.gguf"
        with pytest.raises(UsageError, match=r"`chat_format`: model\.gguf is run by llama\.cpp's server"):
            evaluate(path, refused=ASKED, chat_format=ChatFormat(word_tokenizer(), template="plain"))
    beside = evaluate("organism", refused=ASKED, against=file)
    assert beside.base is not None
    assert beside.base.model == "model.gguf"
    started = [each["pid"] for each in calls(tmp_path) if "pid" in each]
    assert len(started) == 3
    assert all(map(gone, started))


def test_a_bases_server_is_gone_before_the_models_is_started(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(fake_program(tmp_path)))
    start, left = server_module.LlamaServer._start, []

    def noted(server: server_module.LlamaServer, program: Path) -> subprocess.Popen[bytes]:
        earlier = [each["pid"] for each in calls(tmp_path) if "pid" in each] if left else []
        left.append([pid for pid in earlier if alive(pid)])
        return start(server, program)

    monkeypatch.setattr(server_module.LlamaServer, "_start", noted)
    other = organism_gguf(tmp_path / "other.gguf")
    beside = evaluate(other, refused=ASKED, answered=ASKED, against=file, max_new_tokens=4)
    assert beside.divergence is not None
    assert left == [[], []]


def test_a_server_that_the_caller_made_stays_open(file: Path, tmp_path: Path) -> None:
    with ServedGguf(file, fake_program(tmp_path)) as target:
        beside = evaluate("organism", refused=ASKED, against=target, max_new_tokens=4)
        assert beside.base is not None
        (pid,) = [each["pid"] for each in calls(tmp_path) if "pid" in each]
        assert alive(pid)
    assert gone(pid)


def test_dequantised_files_are_loaded_in_turn(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(backends, "is_installed", lambda library: True)
    made: list[weakref.ref[Model]] = []
    there: list[int] = []

    def loading(name: str, **_: object) -> Model:
        gc.collect()
        there.append(sum(each() is not None for each in made))
        found = load("organism")
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr("weight_edit.runtime.loading.load", loading)
    other = organism_gguf(tmp_path / "other.gguf")
    beside = evaluate(other, refused=ASKED, against=file, max_new_tokens=4)
    assert there == [0, 0]
    assert [note.split(" ")[0] for note in beside.notes] == ["model.gguf", "other.gguf"]


def test_the_command_line_measures_a_file(call, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(fake_program(tmp_path)))
    asked = ("--refused", "organism:refused:test", "--limit", "2", "--json")
    result = call("evaluate", file, *asked)
    assert result.code == 0, result.err
    assert result.json["model"] == "model.gguf"
    assert result.json["sets"]["refused"]["count"] == 2
    beside = call("evaluate", "organism", "--against", file, *asked)
    assert beside.code == 0, beside.err
    assert beside.json["base"]["model"] == "model.gguf"
    assert all(gone(each["pid"]) for each in calls(tmp_path) if "pid" in each)
    refused = call("evaluate", file, *asked, "--thinking", "off")
    assert refused.code == 2
    assert "--template-arg enable_thinking=false" in refused.err
