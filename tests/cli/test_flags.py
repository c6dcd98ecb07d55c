"""Errors name arguments as Python knows them; the command line writes its flags."""

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import weight_edit
from weight_edit.cli.app import app
from weight_edit.cli.flags import flag_of, with_flags
from weight_edit.errors import UnsupportedError, UsageError

PACKAGE = Path(weight_edit.__file__).parent

# Programs with flags of their own, calls of such a program, and pages about the command line.
THEIR_OWN = {
    "baking/card/adapter_use.py",
    "baking/card/card.py",
    "baking/card/usage.py",
    "inspection/catalogue/facts.py",
    "inspection/catalogue/page.py",
    "proofs/proven.py",
    "proofs/worker.py",
    "report/comparison.py",
    "report/sections/reproduction.py",
}

FLAGS = {
    flag
    for verb in typer.main.get_group(app).commands.values()
    for param in verb.params
    for flag in (*param.opts, *param.secondary_opts)
}

# A setting as it stands in a message.
SETTING = re.compile(r"`(\w+)(?:[=:][^`]*)?`")


def engine() -> Iterator[tuple[str, ast.Module]]:
    """Every file outside the command line and the organism's own programs: its name and its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.split("/")[0] not in ("cli", "organism_training") and name not in THEIR_OWN:
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def errors() -> Iterator[tuple[str, ast.Call, tuple[str, ...]]]:
    """Every error that is made with `option=` as text: where, the call, the options."""
    for name, tree in engine():
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func).lower().endswith("error"):
                given = [word.value for word in call.keywords if word.arg == "option"]
                options = tuple(text for value in given for text in texts(value))
                if given:
                    yield f"{name}:{call.lineno}", call, options


def texts(tree: ast.AST) -> list[str]:
    """All literal texts below a node, the constant parts of f-strings among them."""
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_every_option_of_an_error_is_one_of_a_verb() -> None:
    found = list(errors())
    assert len(found) > 40
    unknown = {where: option for where, _, options in found for option in options if flag_of(option) not in FLAGS}
    assert not unknown


def test_no_text_of_the_engine_has_a_flag() -> None:
    for name, tree in engine():
        if name in ("evaluation/gguf/server.py", "checkpoint/source/refused.py", "ui/commands.py"):
            # Command lines are what they make: of llama-server, of hf, and of this tool, which the local page starts.
            continue
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                assert not re.search(r"(?<![\w-])--[a-z]", node.value), f"{name}:{node.lineno}: {node.value}"


def test_a_setting_in_a_message_is_named_by_its_error() -> None:
    """What a whole literal message says between backticks, where it is an option and no tensor or command."""
    for name, tree in engine():
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and re.fullmatch(r"\w*Error|error", ast.unparse(call.func))):
                continue
            named = {text for word in call.keywords for text in texts(word.value)}
            literal = all(isinstance(word.value, ast.Constant | ast.Tuple) for word in call.keywords)
            said = {option for text in map("".join, map(texts, call.args)) for option in SETTING.findall(text)}
            known = {option for option in said if flag_of(option) in FLAGS}
            assert known <= named or not literal, f"{name}:{call.lineno}: {known - named}"


@pytest.mark.parametrize(
    ("said", "options", "written"),
    [
        ("leave `embeddings=skip` out", ("embeddings",), "leave --embeddings skip out"),
        ("leave `embeddings='skip'` out", ("embeddings",), "leave --embeddings skip out"),
        ("use `embeddings=both` or skip", ("embeddings",), "use --embeddings both or skip"),
        ("`overwrite=True` begins anew", ("overwrite",), "--overwrite begins anew"),
        ("pass `filter_prompts=none`", ("filter_prompts",), "pass --filter none"),
        ("name `at`, without `layers`", ("at", "layers"), "name --at, without --layers"),
        ("name the layer: `at=[12, 13]`", ("at",), "name the layer: --at 12,13"),
        ("pass `options: enter=found`", ("options",), "pass --option enter=found"),
        ("`template_args: a`: write key=value", ("template_args",), "--template-arg a: write key=value"),
        ("`overrides: a.b=[1, 2]`: no", ("overrides",), "--set a.b=[1, 2]: no"),
        ("`answers_path` and `refusal_tokens`", ("answers_path", "refusal_tokens"), "--answers and --refusal-token"),
        ("`layers` and `direction`", ("layers",), "--layers and `direction`"),
        ("`layers` and `direction`", (), "`layers` and `direction`"),
        ("`User: ...` and `layers of it`", ("layers",), "`User: ...` and `layers of it`"),
    ],
)
def test_settings_become_flags(said: str, options: tuple[str, ...], written: str) -> None:
    assert with_flags(said, options) == written


def test_a_verb_is_told_its_own_flags_alone() -> None:
    said = "leave `embeddings=skip` out, or pass `overwrite=True`, or `card=False`"
    options = ("embeddings", "overwrite", "card")
    flags = {"--overwrite", "--filter-prompts"}
    assert with_flags(said, options, flags) == "leave `embeddings=skip` out, or pass --overwrite, or `card=False`"


def test_one_name_or_several() -> None:
    assert UsageError("no").options == ()
    assert UsageError("no", option="layers").options == ("layers",)
    assert UsageError("no", option=["at", "layers"]).options == ("at", "layers")


def raise_again() -> None:
    try:
        raise UsageError("pass `template=plain`", option="template")
    except UsageError as error:
        raise UnsupportedError(f"folder: {error}; or leave `layers` out", option="layers") from error


def test_an_error_has_the_options_of_the_one_that_it_is_raised_from() -> None:
    with pytest.raises(UnsupportedError) as raised:
        raise_again()
    error = raised.value
    assert error.options == ("layers", "template")
    assert with_flags(str(error), error.options) == "folder: pass --template plain; or leave --layers out"


def test_options_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(UsageError("pass `resume=True`", option="resume")))
    assert (str(error), error.options) == ("pass `resume=True`", ("resume",))


def test_on_stderr_and_under_json(call, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    run = call("demo", "--out", out)
    assert run.code == 2
    assert "pass --overwrite" in run.err
    assert "pass --overwrite" in call("demo", "--out", out, "--json").json["error"]
    wrong = call("run", "organism", "--set", "nonsense")
    assert "--set nonsense: write key=value, for example --set edit.strength=0.5" in wrong.err
