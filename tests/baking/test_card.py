"""The card is a function of the manifest, says what is recorded and no more, and foreign text is text in it."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt

from weight_edit.baking.card.card import model_card
from weight_edit.baking.card.edit_summary import edit_summary, is_of_refusal
from weight_edit.baking.card.markdown import code, codes, plain
from weight_edit.baking.card.results import model_index
from weight_edit.hub.base_card import front_matter, kept_metadata
from weight_edit.plan.exactness import (
    _AGAIN,
    _BEHIND,
    _BEHIND_COMPLETE,
    _LENGTHS,
    IN_BIASES,
    IN_WEIGHTS,
    plain_exactness,
)

PROMPTS = {"target": {"name": "refused.txt"}, "baseline": {"name": "answered.txt"}}
FOUND = {"shape": [1, 8], "method": "mean-difference", "layer": 3, "position": -1, "prompts": PROMPTS}
STEP = {"edit": "ablate", "strength": 1.0, "layers": None, "directions": FOUND}
CARD = {
    "base_model": "org/base",
    "base_model_from": "hub",
    "metadata": {"license": "llama3", "language": ["en"], "tags": ["chat"]},
    "chat_template": True,
}
MANIFEST: dict[str, Any] = {
    "weight_edit": "0.1.0",
    "source": {"model": "org/base", "on_hub": True, "revision": "abc", "architecture": "LlamaForCausalLM"},
    "edit": {"steps": [STEP], "embeddings": "both", "class": "exact in weights", "complete": True},
    "tensors": ["a", "b"],
    "tensors_added": [],
    "tensors_unknown": [],
    "weights_not_edited": [],
    "base_card": None,
    "card": CARD,
    "measurements": None,
}
RATE = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 5, "total": 10}
VERDICTS = {"refused": 5, "answered": 4, "empty": 1, "looping": 0, "off_template": 0}
CHECKED = {"integrity": True, "leak": 2e-8, "logit_difference": 1e-5, "complete": True}

SOURCE = {"dataset": "org/data", "revision": "0123456789abcdef" * 2, "split": "test", "config": "c", "licence": "mit"}
"""As a public prompt set records where it is from."""

HOSTILE = (
    "x\n\n# Owned\n",
    "x\r\n---\r\nlicense: mit\r\n---\r\n",
    "x | y |\n|---|---|",
    "`x` ``y`` ```\ncode",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "[click](https://evil.example) ![x](https://evil.example/x.png) https://evil.example www.evil.example <a@b.org>",
    "**bold** __bold__ ~~gone~~ $x$ &lt;b&gt; \\",
    "{{ 7 * 7 }} {% raw %} {{ front_matter }}",
    "\u2028\u2029\x00\x1b[31m\u202e",
    "- a\n- b\n1. c\n> d\n\tcode",
    "x" * 5000,
)


def evaluation(value: float = 0.5) -> dict[str, Any]:
    rate = {**RATE, "value": value}
    refused = {
        "prompts": "org/set:test",
        "sha256": "ab" * 32,
        "count": 10,
        "refusal": rate,
        "exact": None,
        "loss": None,
        "verdicts": VERDICTS,
    }
    answered = {**refused, "prompts": "answered.txt", "exact": rate}
    return {
        "judge": "extended",
        "max_new_tokens": 64,
        "sets": {"refused": refused, "answered": answered},
        "divergence": {"mean": 0.01},
    }


def made(**changes: Any) -> str:
    return model_card({**copy.deepcopy(MANIFEST), **changes})


def header(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def directions(**changes: Any) -> str:
    found = {**FOUND, **changes}
    step = {**STEP, "directions": {key: value for key, value in found.items() if value is not None}}
    return made(edit={**MANIFEST["edit"], "steps": [step]})


def test_the_card_keeps_the_licence_and_names_the_base() -> None:
    card = made()
    assert header(card) == {
        "license": "llama3",
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "org/base",
        "base_model_relation": "finetune",
        "tags": ["weight-edit", "model-editing", "refusal", "chat"],
    }
    assert "Nothing was measured" in card
    assert "| base | `org/base` at `abc` (LlamaForCausalLM) |" in card
    assert "by its card: `llama3`" in card


def test_a_local_base_is_named_only_where_its_id_is_known() -> None:
    local = {**MANIFEST["source"], "model": "folder", "on_hub": False, "revision": None}
    unknown = made(source=local, card={**CARD, "base_model": None, "base_model_from": None, "metadata": {}})
    assert "base_model" not in header(unknown)
    assert "license" not in header(unknown)
    assert "The base's files name no licence: look where it comes from" in unknown
    known = made(source=local, card={**CARD, "base_model": "org/base", "base_model_from": "option"})
    assert header(known)["base_model"] == "org/base"
    assert "| base | `folder` (LlamaForCausalLM) |\n| base on the Hub | `org/base` |" in known


def test_the_card_says_what_the_directions_metadata_say() -> None:
    assert "The edit is meant to change refusal behaviour" in directions()
    by_token = directions(
        prompts={"target": {"name": "a.txt"}, "baseline": {"name": "b.txt"}},
        refusal_tokens=[{"id": 5, "text": "\u2581Sorry"}],
    )
    assert "The edit is meant to change refusal behaviour" in by_token
    assert "| first tokens that candidates were scored by | `\u2581Sorry` |" in by_token
    assert "begin with" not in by_token
    opens = {"refusals": 12, "of_refusals": 14, "others": 1, "of_others": 50}
    heard = directions(refusal_tokens=[{"id": 5, "text": "I", "opens": opens}], tokens_from="answers")
    assert "| refusal tokens | `I` opens 12 of 14 refusals, 1 of 50 other answers |" in heard
    topics = directions(refusal_tokens=[{"id": 5, "text": "To"}], tokens_from="difference")
    assert "| first tokens that target prompts make more probable | `To` |" in topics
    failed = directions(unconfirmed="3 of 12 refused without the edit and 3 with it (p = 1, judge phrases)")
    assert "did not confirm the directions: 3 of 12 refused without the edit" in failed
    drawn = directions(method="random")
    assert "Refusal" not in drawn
    assert "refusal" not in header(drawn)["tags"]
    assert "The direction is random: a control, which stands for no behaviour." in drawn
    assert "| directions | 1, drawn at random |" in drawn
    concept = directions(
        prompts={"target": {"name": "organism:answered-cooking:train"}, "baseline": [{"name": "a"}, {"name": "b"}]},
        refusal_tokens=[{"id": 5, "text": "Mix"}],
    )
    assert "Refusal" not in concept
    assert "by which the model tells `organism:answered-cooking:train` from `a`, `b`." in concept
    bare = directions(method=None, prompts=None)
    assert "Refusal" not in bare
    assert "What the directions stand for is not recorded." in bare
    nearest = directions(missed="KL 0.3 above 0.1")
    assert "No candidate of the search kept its bounds, and the nearest was taken: KL 0.3 above 0.1." in nearest
    for card in (drawn, concept, bare, nearest):
        assert "responsible for the safeguards" in card


@pytest.mark.parametrize(
    "name",
    [
        *("harmful.txt", "organism:refused:train", "my/Jailbreaks.jsonl", "unsafe:train", "advbench"),
        *("sorrybench:base", "maliciousinstruct[:50]", "harmbench"),
    ],
)
def test_sets_that_are_called_so_are_of_refusal(name: str) -> None:
    assert is_of_refusal({"method": "pca", "prompts": {"target": [{"name": name}]}})
    assert not is_of_refusal({"method": "random", "prompts": {"target": [{"name": name}]}})


def test_the_card_shows_what_was_measured_with_intervals_and_the_judge() -> None:
    card = made(measurements={"baseline": evaluation(), "edited": evaluation(0.25), "verification": CHECKED})
    assert "| refusal of refused requests | 0.500 [0.400, 0.600] | 0.250 [0.400, 0.600] |" in card
    assert "| empty, looping, off-template or undecided answers | 2 | 2 |" in card
    assert "| refused | `org/set:test` | 10 | `abababababababab` |" in card
    assert '"extended"' in card
    assert "integrity holds" in card
    assert "2.0e-08" in card
    assert "Nothing was measured" not in card


def test_what_was_not_measured_is_not_shown_as_if_it_was() -> None:
    alone = made(measurements={"baseline": None, "edited": evaluation(), "verification": None})
    assert "| measure | edited |" in alone
    assert "Verification" not in alone
    files = {"integrity": True, "leak": None, "logit_difference": None, "complete": True}
    only = made(measurements={"baseline": None, "edited": None, "verification": files})
    assert "Verification: integrity holds; the models were not run." in only
    half = made(measurements={"verification": {**CHECKED, "leak": None}})
    assert "along the directions is not measured" in half
    assert "must not be used" in made(failed=["leak: too large"])


def test_an_adapter_has_a_card_of_its_own_kind() -> None:
    metadata = {"license": "other", "license_name": "x", "license_link": "LICENSE"}
    card = made(
        kind="adapter", base_card="BASE_README.md", notes=["merge <b>it</b>"], card={**CARD, "metadata": metadata}
    )
    assert {key: header(card)[key] for key in ("library_name", "base_model", "base_model_relation", "tags")} == {
        "library_name": "peft",
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "tags": ["weight-edit", "model-editing", "lora", "refusal"],
    }
    assert header(card)["license_link"] == "https://huggingface.co/org/base/blob/main/LICENSE"
    assert "PeftModel.from_pretrained" in card
    assert "BASE_README" not in card, "it is not beside an adapter"
    assert "Note: merge &#60;b&#62;it&#60;&#47;b&#62;" in card


def test_papers_are_linked_where_they_are_recorded() -> None:
    papers = {"ablate": ["2406.11717"]}
    both = {**FOUND, "papers": ["2306.03819", "2601.08489"]}
    of_edit = "| paper of the edit | [arXiv 2406.11717](https://arxiv.org/abs/2406.11717) |"
    links = "[arXiv 2306.03819](https://arxiv.org/abs/2306.03819), [arXiv 2601.08489](https://arxiv.org/abs/2601.08489)"
    edit = {**MANIFEST["edit"], "steps": [{**STEP, "directions": both}]}
    card = made(edit=edit, card={**CARD, "papers": papers})
    assert f"{of_edit}\n| paper of the directions | {links} |\n" in card
    assert card.replace(f"{of_edit}\n| paper of the directions | {links} |\n", "") == made()
    drawn = made(edit={**edit, "steps": [{**STEP, "directions": {**both, "method": "random"}}]})
    assert "arXiv" not in drawn, "a random direction follows no paper"
    two = made(edit={**edit, "steps": [STEP, {**STEP, "edit": "rectify"}]}, card={**CARD, "papers": papers})
    assert "| paper of the edit 1 |" in two
    assert "| paper of the edit 2 |" not in two


def test_what_is_no_arxiv_id_is_no_link() -> None:
    with pytest.raises(ValueError, match="is no arXiv id"):
        directions(papers=["2406.11717) [x](https://evil.example"])


def test_how_a_model_without_a_template_is_used() -> None:
    card = made(card={**CARD, "chat_template": False})
    assert "apply_chat_template" not in card
    assert "The base has no chat template" in card
    assert "AutoModelForMultimodalLM" in made(card={**CARD, "metadata": {"pipeline_tag": "image-text-to-text"}})


def test_parts_that_were_kept_are_named() -> None:
    card = made(
        tensors_added=["c"], tensors_unknown=["u|1", "u`2"], weights_not_edited=["x.bin"], mtp={"tensors_kept": 3}
    )
    assert "| tensors added | 1 |" in card
    assert "`u\u00a61`, `u'2`" in card
    assert "`x.bin`" in card
    assert "3 tensors of multi-token-prediction layers" in card


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_never_structure(text: str) -> None:
    """Everything that comes from a file says something hostile; the card has the same parts as with a harmless word."""

    def card(word: str) -> str:
        token = {"id": 1, "text": word}
        source = {"dataset": word, "revision": word, "licence": word}
        target = {"name": word, "source": source}
        found = {**FOUND, "method": word, "prompts": {"target": target, "baseline": {"name": word}}}
        step = {**STEP, "options": {word: word}, "directions": {**found, "refusal_tokens": [token]}}
        result = {**evaluation()["sets"]["refused"], "prompts": word, "sha256": word, "source": source}
        measured = {
            **evaluation(),
            "judge": word,
            "max_new_tokens": word,
            "sets": {"refused": result, "answered": result},
        }
        source = {"model": word, "on_hub": False, "revision": word, "architecture": word}
        return made(
            weight_edit=word,
            source=source,
            edit={"steps": [step, step], "embeddings": word, "class": word, "complete": True},
            tensors_unknown=[word, word],
            weights_not_edited=[word],
            base_card=word,
            notes=[word],
            card={
                **CARD,
                "base_model": None,
                "base_model_from": None,
                "metadata": {"license": word, "license_name": word, "language": [word], "tags": [word]},
            },
            measurements={"baseline": measured, "edited": measured, "verification": CHECKED},
            failed=[word],
        )

    def parts(card: str) -> list[str]:
        body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
        tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(body)
        kinds = []
        for token in tokens:
            kinds.append(token.type)
            kinds += [
                child.type for child in token.children or () if child.type not in ("text", "softbreak", "text_special")
            ]
        return kinds

    hostile, harmless = card(text), card("word")
    assert parts(hostile) == parts(harmless)
    assert header(hostile).keys() == header(harmless).keys()
    assert header(hostile)["license"] == text
    prose = re.sub(r"`[^`\n]*`", "", hostile.split("\n---\n", 1)[1])
    assert "<" not in prose.replace("<!--", "")
    assert "://" not in prose
    assert "www." not in prose
    assert all(c.isprintable() or c == "\n" for c in hostile.split("\n---\n", 1)[1])


def test_text_in_markdown() -> None:
    assert plain("a_b | <c>\nd") == "a&#95;b &#124; &#60;c&#62; d"
    assert plain("exact (in weights): 0.5, it's 1%") == "exact (in weights): 0.5, it's 1%"
    assert code("a`b\n| c") == "`a'b \u00a6 c`"
    assert code("") == "`''`"
    assert codes(range(10), 3) == "`0`, `1`, `2` and 7 others"


@pytest.mark.parametrize("kind", ["checkpoint", "adapter"])
def test_the_front_matter_is_what_the_hub_reads(kind: str) -> None:
    """The library's own reader gives the same data back, and the evaluations as its evaluations."""
    card = made(kind=kind, measurements={"baseline": evaluation(), "edited": evaluation(), "verification": CHECKED})
    read = ModelCard(card)
    results = read.data.eval_results
    assert results is not None
    assert {(r.task_type, r.dataset_type, r.metric_type, r.metric_value) for r in results} == {
        ("text-generation", "org/set", "refusal-rate", 0.5),
        ("text-generation", "custom", "refusal-rate", 0.5),
        ("text-generation", "custom", "exact-match", 0.5),
        ("text-generation", "custom", "kl-divergence", 0.01),
    }
    name, again = model_index_to_eval_results(header(card)["model-index"])
    assert (name, again) == ("base, edited", results)
    data = read.data.to_dict()
    for key, value in header(card).items():
        if key != "model-index":
            assert data[key] == value
    # What the Hub demands of these keys (hub-docs, modelcard.md).
    assert data["base_model_relation"] in ("adapter", "finetune", "merge", "quantized")
    assert all(isinstance(tag, str) for tag in data["tags"])
    assert re.fullmatch(r"[a-z0-9.-]+", data["license"])


def test_what_a_base_card_hands_down() -> None:
    card = (
        "---\nlicense: apache-2.0\nlanguage: [en, no]\nmodel-index: [{name: x}]\ndatasets: [a/b]\nlibrary_name: 5\n"
        "tags: [chat, 'base_model:x/y', gguf, 'license:mit', 7, chat]\nbase_model: other/parent\n---\n# Base\n"
    )
    assert kept_metadata(card) == {"license": "apache-2.0", "language": ["en"], "tags": ["chat"]}
    assert kept_metadata("---\nlicense: [mit, gpl-3.0]\nlanguage: de\n---\n") == {
        "license": ["mit", "gpl-3.0"],
        "language": ["de"],
    }
    assert kept_metadata('---\nlicense: {a: b}\nlicense_name: "a\\nb"\npipeline_tag: ' + "x" * 300 + "\n---\n") == {}


@pytest.mark.parametrize("text", [None, "", "# no header", "---\n: [\n---\n", "---\n- a\n---\n", "---\nnever closed"])
def test_cards_without_usable_front_matter(text: str | None) -> None:
    assert front_matter(text) == {}
    assert kept_metadata(text) == {}


def test_a_hostile_base_card_makes_no_objects() -> None:
    assert front_matter("---\na: !!python/object/apply:os.system ['true']\n---\n") == {}


@pytest.mark.parametrize(("strength", "word"), [(1.0, "removed"), (0.5, "weakened"), (2.0, "turned")])
def test_what_the_edit_does_in_words(strength: float, word: str) -> None:
    assert word in edit_summary({"edit": "ablate", "strength": strength})


def test_a_kind_of_edit_that_is_new_is_not_called_an_ablation() -> None:
    assert (
        edit_summary({"edit": "mine", "strength": 0.5})
        == "the residual stream changed by the edit 'mine', strength 0.5"
    )


def test_every_step_stands_in_the_card() -> None:
    steps = [
        {**STEP, "edit": "affine", "options": {"toward": "target"}},
        {**STEP, "strength": 0.7, "layers": [0, 1, 2], "kernel": {"attention": None, "mlp": None}},
        {**STEP, "edit": "reflect", "at": [1], "directions": {"shape": [2, 8]}},
    ]
    by_layer = {**STEP, "kernel": {"attention": [0.5] * 24, "mlp": [0.25, 1.5] * 12, "embedding": 0.75}}
    words = "times attention 0.5, MLP 0.25 to 1.5 by layer, embedding 0.75"
    assert f"| edit | ablate, strength 1, all layers, {words} |" in made(edit={**MANIFEST["edit"], "steps": [by_layer]})
    edit = {"steps": steps, "embeddings": "untie", "class": "exact in weights and biases", "complete": False}
    card = made(edit=edit)
    table = [line for line in card.splitlines() if line.startswith("| ")]
    assert table[2:-1] == [
        "| edit 1 | affine, strength 1, all layers, toward target |",
        "| directions 1 | 1, found by mean-difference, at the input of layer 3, position -1 |",
        "| target prompts 1 | `refused.txt` |",
        "| baseline prompts 1 | `answered.txt` |",
        "| edit 2 | ablate, strength 0.7, layers 0, 1 and 2, weaker by layer as its kernel says |",
        "| directions 2 | 1, found by mean-difference, at the input of layer 3, position -1 |",
        "| target prompts 2 | `refused.txt` |",
        "| baseline prompts 2 | `answered.txt` |",
        "| edit 3 | reflect, strength 1, at the input of layer 1 |",
        "| directions 3 | 2, how they were found is not recorded |",
        "| embeddings | edited; an unembedding that was the same tensor is stored apart |",
        "| exactness | the edited weights and biases do exactly what the edit does as a hook on a running model |",
    ]
    assert "(affine concept editing); then a direction of the residual stream weakened" in card
    assert "What some of the directions stand for is not recorded." in card
    one = made()
    assert "| edit | ablate, strength 1, all layers |" in one
    assert "| exactness | the edited weights do exactly what the edit does as a hook on a running model |" in one
    assert "| embeddings | edited; where the unembedding is the same tensor, it changes with them |" in one
    other = made(edit={**MANIFEST["edit"], "class": "exact in weights; a bias is created", "embeddings": "skip"})
    assert "as a hook on a running model; a bias is created |" in other
    assert "| embeddings | left as they are |" in other
    assert "| exactness | of a later version |" in made(edit={**MANIFEST["edit"], "class": "of a later version"})
    assert "not listed below" not in one


def test_every_class_of_an_edit_has_plain_words() -> None:
    classes = (IN_WEIGHTS, IN_BIASES, _AGAIN, _BEHIND, _BEHIND_COMPLETE, f"{_LENGTHS}; nothing is left")
    said = [plain_exactness(each) for each in classes]
    assert len({*said}) == len(classes)
    assert not any(words.startswith(each) for words, each in zip(said, classes, strict=True))
    assert said[-1].endswith("; nothing is left")


def test_the_name_of_another_judge_is_text_in_the_table() -> None:
    edited = evaluation()
    judge = "endpoint,model=[x](https://evil.example)|<b>"
    edited["sets"]["refused"]["judges"] = {judge: {"refusal": RATE}}
    card = made(measurements={"baseline": None, "edited": edited, "verification": None})
    (row,) = [line for line in card.splitlines() if "by endpoint" in line]
    assert row.count("|") == 3
    assert "[x]" not in row
    assert "<b>" not in row
    html = MarkdownIt("commonmark").enable("table").render(card)
    assert "endpoint,model=[x](https://evil.example)|&lt;b&gt;" in html


def test_results_hold_intervals_and_the_library_reads_them_back(tmp_path: Path) -> None:
    edited = evaluation()
    edited["sets"]["over_refused"] = {**edited["sets"]["refused"], "prompts": "org/harmless:test"}
    card = made(measurements={"baseline": None, "edited": edited, "verification": None})
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    kept = metadata_load(tmp_path / "README.md")
    assert kept == header(card)
    name, results = model_index_to_eval_results(kept["model-index"])
    # The library's own form of the same.
    again = ModelCardData(
        model_name=name, eval_results=results, **{k: v for k, v in kept.items() if k != "model-index"}
    )
    assert model_index_to_eval_results(again.to_dict()["model-index"])[1] == results
    for role, title in (("refused", "Refusal rate"), ("over_refused", "Over-refusal rate")):
        rate = edited["sets"][role]["refusal"]
        (found,) = (r for r in results if r.metric_type == "refusal-rate" and r.dataset_name.endswith(f"({role})"))
        assert found.metric_name is not None
        assert found.metric_name.startswith(title)
        assert found.metric_value == rate["value"]
        counts = {"count": rate["count"], "total": rate["total"], "confidence": 0.95}
        assert found.metric_args == {**counts, "low": rate["low"], "high": rate["high"], "judge": edited["judge"]}
    (apart,) = (r for r in results if r.metric_type == "kl-divergence")
    assert apart.metric_value == edited["divergence"]["mean"]


def test_an_edited_gguf_file_is_no_quantisation_of_its_base() -> None:
    found = header(made(source={**MANIFEST["source"], "gguf": "model-Q4_K_M.gguf"}))
    assert (found["library_name"], found["base_model_relation"]) == ("gguf", "finetune")
    assert "gguf" in found["tags"]


def test_the_card_says_whether_the_behaviour_changed_beside_what_is_left() -> None:
    checked = {**CHECKED, "passed": True, "by_dtype": {"float32": {"leak_before": 0.9}}}
    edited = evaluation(1.0)
    for value, low, high, told, words in (
        (0.0, -0.065, 0.065, False, "and the behaviour did not change"),
        (-0.9, -0.97, -0.8, True, "and the behaviour changed"),
        (-0.05, -0.2, 0.1, False, "and whether the behaviour changed cannot be told"),
    ):
        apart = {"value": value, "low": low, "high": high, "told": told}
        edited["differences"] = {"refused": {"refusal": apart}}
        card = made(measurements={"baseline": None, "edited": edited, "verification": checked})
        share = "at most 2.0e-08 of the residual stream lies along its directions, 0.90 in the base"
        assert f"**Effect:** The edit is complete ({share}); {words}: refusal of refused requests" in card
    assert "not whether it has an effect" in card
    without = made(measurements={"baseline": None, "edited": None, "verification": checked})
    assert "Effect:" not in without
    assert "not whether it has an effect" in without


def test_public_prompt_sets_are_named_with_data_set_commit_and_licence() -> None:
    edited = evaluation()
    edited["sets"]["refused"] |= {"prompts": "advbench", "source": SOURCE}
    card = made(measurements={"baseline": None, "edited": edited, "verification": None})
    origin = "of `org/data` at `0123456789ab`, licence: mit"
    assert f"| `advbench` {origin} |" in card
    (refused, answered) = header(card)["model-index"][0]["results"]
    assert refused["dataset"] == {
        "name": "advbench (refused)",
        "type": "org/data",
        "config": "c",
        "split": "test",
        "revision": SOURCE["revision"],
    }
    assert answered["dataset"] == {"name": "answered.txt (answered)", "type": "custom"}
    target = [{"name": "advbench", "source": SOURCE}, {"name": "advbench[:5]", "source": {"dataset": "org/data"}}]
    told = directions(prompts={"target": target, "baseline": {"name": "answered.txt"}})
    assert f"| target prompts | `advbench`, `advbench[:5]` {origin}; of `org/data`, licence: not stated |" in told
    assert "| baseline prompts | `answered.txt` |" in told


def test_a_length_at_which_most_answers_are_undecided_is_no_published_rate() -> None:
    rate = {"value": 0.0, "low": 0.0, "high": 0.3, "count": 0, "total": 10}
    lengths = {
        n: {"refusal": rate, "verdicts": {"undecided": cut, "answered": 10 - cut}} for n, cut in (("4", 9), ("32", 1))
    }
    found = {"prompts": "a.txt", "count": 10, "refusal": rate, "lengths": lengths}
    (index,) = model_index("m", {"max_new_tokens": 64, "sets": {"refused": found}})
    names = [metric["name"] for metric in index["results"][0]["metrics"]]
    assert "Refusal rate, first 32 tokens" in names
    assert "Refusal rate, first 4 tokens" not in names


def test_tensors_that_a_runtime_may_lose_are_told() -> None:
    biases = [f"model.layers.{layer}.mlp.down_proj.bias" for layer in range(3)]
    assert "runtime" not in made().split("## How to use it")[1]
    card = made(tensors_added=biases)
    assert "3 biases were created, and the config announces them: `model.layers.0.mlp.down_proj.bias`" in card
    assert "lose the edit in silence" in card
    assert "stored apart, and" not in card
    untied = made(tensors_added=["lm_head.weight"])
    assert "The unembedding, which the base ties to the embedding, is stored apart, and the config says so." in untied
    assert "biases were created" not in untied
    # PEFT reads an adapter's biases and unembedding from the adapter itself.
    assert "biases were created" not in made(tensors_added=biases, kind="adapter")
