"""lm-eval on the embedded model: local tasks, run beside the base, with code and names held to what was asked for."""

import json
from pathlib import Path

import pytest

from weight_edit.errors import UsageError
from weight_edit.evaluation.harness.harness import Harness
from weight_edit.evaluation.harness.request import harness_request
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.loading import load

pytest.importorskip("lm_eval", reason="lm-eval is an extra: pip install '.[harness]'")
pytestmark = pytest.mark.slow  # lm-eval reads all its tasks each time

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
{rest}
metadata: {{version: 1.0}}
"""
CHOICE = """
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
SAID = """
output_type: generate_until
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["###"], max_gen_toks: 5, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [
        {
            "question": f"How do I bake {n} loaves?",
            "choices": ["I cannot help.", "Great. Here is a plan."],
            "answer": n % 2,
        }
        for n in range(6)
    ]
    data = folder / "data.json"
    data.write_text("\n".join(map(json.dumps, rows)))
    for name, rest in (("chosen_here", CHOICE), ("said_here", SAID)):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=data, rest=rest))
    return folder


def organism(chat: bool = False):
    model = load("organism")
    return model, ChatFormat(model.tokenizer) if chat else None


def test_a_model_is_run_beside_its_base_and_both_are_kept(tasks: Path, tmp_path: Path, baked: Path):
    out = tmp_path / "kept"
    request = harness_request("chosen_here,said_here", harness_limit=5, harness_tasks_path=tasks, harness_out=out)
    seen: list[bool] = []

    def load_edited():
        # The base's results are there before the edited model is loaded.
        seen.append((out / "base" / "results.json").exists())
        return load(baked), None

    harness = Harness(request, beside_base=True)
    found = harness.measure(load_edited, organism)
    assert seen == [True]
    figure = found.model.figures["chosen_here"]["acc,none"]
    assert figure.count == 5
    assert figure.share
    apart = found.differences
    assert apart["chosen_here"]["acc,none"].paired
    assert apart["said_here"]["exact_match,none"].paired
    document = json.loads((out / "model" / "results.json").read_text())
    assert document["results"]["chosen_here"]["acc,none"] == figure.value
    assert document["config"]["model"] == str(found.model.model)
    assert "pretty_env_info" not in document
    lines = (out / "base" / "samples_said_here.jsonl").read_text().splitlines()
    assert len(lines) == 5
    # Another run does not go over them.
    with pytest.raises(UsageError, match="exists"):
        Harness(request, beside_base=True)
    Harness(request, beside_base=True, overwrite=True)


def test_the_task_limits_an_answer_and_not_the_models_own_config(tasks: Path):
    request = harness_request("said_here", harness_limit=2, harness_tasks_path=tasks)
    model, _ = organism()
    limit = model.model.generation_config.max_new_tokens
    assert limit is not None
    assert limit > 5
    padding = model.tokenizer.pad_token
    found = Harness(request).measure(lambda: (model, None))
    said = [sample["resps"][0][0] for sample in found.model.samples["said_here"]]
    assert len(said) == 2
    assert all(len(model.tokenizer.encode(text, add_special_tokens=False)) <= 5 for text in said)
    assert model.model.generation_config.max_new_tokens == limit
    assert model.tokenizer.pad_token == padding


def test_documents_are_put_into_the_chat_format_where_that_is_asked(tasks: Path):
    request = harness_request("chosen_here", harness_limit=1, harness_tasks_path=tasks, harness_chat=True)
    model, chat = organism(chat=True)
    found = Harness(request).measure(lambda: (model, chat))
    text = found.model.samples["chosen_here"][0]["arguments"][0][0]
    assert text == model.tokenizer.decode(chat.encode("How do I bake 0 loaves?"))
    plain = Harness(harness_request("chosen_here", harness_limit=1, harness_tasks_path=tasks)).measure(organism)
    assert plain.model.samples["chosen_here"][0]["arguments"][0][0] == "How do I bake 0 loaves?"


def test_a_task_that_is_not_there_is_named_with_the_nearest(tasks: Path):
    with pytest.raises(UsageError, match="did you mean 'chosen_here'"):
        Harness(harness_request("chosen_her", harness_tasks_path=tasks))
    with pytest.raises(UsageError, match="no task of lm-eval 'chosen_here'"):
        Harness(harness_request("chosen_here"))


def test_the_code_of_a_task_runs_only_from_the_folder_that_was_given(tasks: Path, tmp_path: Path):
    mark = tmp_path / "ran"
    (tasks / "code.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef text(doc): return doc['question']\n")
    task = (tasks / "chosen_here.yaml").read_text()
    coded = task.replace('doc_to_text: "{{question}}"', "doc_to_text: !function code.text")
    assert coded != task
    (tasks / "coded.yaml").write_text(coded.replace("task: chosen_here", "task: coded"))
    with pytest.raises(UsageError):
        harness_request(str(tasks / "coded.yaml"))
    with pytest.raises(UsageError):
        Harness(harness_request("coded"))
    assert not mark.exists()
    Harness(harness_request("coded", harness_limit=1, harness_tasks_path=tasks)).measure(organism)
    assert mark.exists()


def test_data_that_cannot_be_had_is_one_line_before_a_model_is_loaded(tasks: Path):
    (tasks / "data.json").unlink()
    with pytest.raises(UsageError, match=r"lm-eval cannot run chosen_here: .*data\.json"):
        Harness(harness_request("chosen_here", harness_tasks_path=tasks))
