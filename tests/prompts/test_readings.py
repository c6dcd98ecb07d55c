"""What was read of prompt files is said: the column, the count, what was left out and the first prompt."""

from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.readings import readings


def test_each_set_is_told_of_once(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('question;answer;type\n"How do I\nbake?";Knead.;food\n;;\nHow do I bake?;;\nWho?;;\nWho?;;\n')
    said = []
    with readings(said.append, show_first=True) as found:
        load_prompts(str(path))
        load_prompts(str(path))
        load_prompts("organism:refused:test")
        load_prompts("atoms:code")
    assert said == [
        f"{path}: 3 prompts from column 'question', answers from 'answer', categories from 'type', 1 empty and "
        '1 repeated left out; the first: "How do I bake?"'
    ]
    assert [each.to_dict() for each in found] == [
        {
            "name": str(path),
            "columns": {"prompts": "question", "answers": "answer", "categories": "type"},
            "count": 3,
            "dropped": {"empty": 1, "duplicate": 1},
            "first": "How do I bake?",
        }
    ]


def test_a_long_prompt_is_cut_and_control_characters_go_nowhere(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("\x1b[31m" + "word " * 100)
    said = []
    with readings(said.append, show_first=True):
        load_prompts(str(path))
    assert "\x1b" not in said[0]
    assert said[0].startswith(f"{path}: 1 prompts; the first:")
    assert said[0].endswith('..."')
    assert len(said[0]) < len(str(path)) + 170


def test_nothing_is_collected_outside(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("hello")
    with readings(lambda line: None) as found:
        pass
    load_prompts(str(path))
    assert found == []


def test_no_prompt_goes_into_a_log(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("hello there\n")
    said = []
    with readings(said.append):
        load_prompts(str(path))
    assert said == [f"{path}: 1 prompts"]
