"""What is not finite is said with the block where it begins and the dtype, and blamed on nothing else."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.helpers.random_models import random_model
from weight_edit.baking.bake import bake
from weight_edit.cli.tables import results as show
from weight_edit.directions.candidate import Candidate
from weight_edit.directions.directions import Directions
from weight_edit.directions.find import find_directions
from weight_edit.directions.scores import SCORES, Scorer
from weight_edit.directions.selection import SelectionRule
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError, VerificationError
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.evaluation.first_token import first_token_logprobs
from weight_edit.evaluation.thinking import think
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.generation import generate
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.overflow import overflow
from weight_edit.runtime.points import Point
from weight_edit.studies.lab import Lab
from weight_edit.studies.places import stream_of
from weight_edit.verification.verify import verify

TARGET = PromptSet.of(
    "target", [f"how to make {a} {b}" for a in ("paint", "bread", "cars") for b in ("red", "blue", "a", "the", "I")]
)
BASELINE = PromptSet.of(
    "baseline", [f"tell me {a} {b}" for a in ("paint", "bread", "cars") for b in ("red", "blue", "a", "the", "I")]
)
SAID = (
    r"random llama in float16: the residual stream is not finite from the middle of block 2 on \(it reached .* before; "
    r"float16 ends at 6\.6e\+04\); load it in bfloat16 or float32"
)


def loud(dtype=torch.float16):
    """A model whose third block writes more than float16 holds."""
    model = random_model("llama")
    with torch.no_grad():
        # Each weight is within what float16 holds.
        model.model.get_parameter("model.layers.2.self_attn.v_proj.weight").mul_(100)
        model.model.get_parameter("model.layers.2.self_attn.o_proj.weight").mul_(1e4)
    model.model.to(dtype)
    return model


def test_the_place_is_named():
    model = loud()
    sequences = [ChatFormat(model.tokenizer).encode("how to make bread")]
    assert overflow(loud(torch.bfloat16), sequences) is None
    said = overflow(model, sequences)
    assert "float16: the residual stream is not finite from" in said
    assert "block 2 on" in said


@pytest.mark.parametrize(
    "options", [{}, {"refusal_tokens": ["sorry"]}, {"rule": SelectionRule(select="cosmic")}, {"method": "leace"}]
)
def test_finding_blames_neither_tokens_nor_norms(options):
    with pytest.raises(UsageError, match=SAID):
        find_directions(loud(), TARGET, BASELINE, n_train=8, n_validation=4, filter_prompts=False, **options)


@pytest.mark.parametrize("known", [None, "sure here is"])
def test_evaluating_scores_no_answers(known):
    prompts = PromptSet.of("asked", ["tell me the way"], [known])
    with pytest.raises(VerificationError, match=SAID):
        evaluate(loud(), refused=prompts, max_new_tokens=2)
    with pytest.raises(VerificationError, match=SAID):
        first_token_logprobs(loud(), prompts)
    with pytest.raises(UsageError, match=SAID):
        think(loud(), prompts.prompts, max_new_tokens=2)


def test_answers_say_whether_they_mean_anything():
    sequences = [ChatFormat(random_model("llama").tokenizer).encode("tell me the way")]
    assert not generate(loud(), sequences, max_new_tokens=2)[0].finite
    assert generate(loud(torch.bfloat16), sequences, max_new_tokens=2)[0].finite


def test_scoring_says_it_of_the_unedited_model_alone():
    model = random_model("llama")
    chat = ChatFormat(model.tokenizer)
    prompts = [chat.encode(prompt) for prompt in TARGET.prompts]
    rows = torch.nn.functional.one_hot(torch.tensor([0]), 32).float()
    asked = {0: Candidate(position=-1, layer=0, rows=rows, vector=None)}
    found: dict = {}

    def scorer(of):
        return Scorer(of, target=prompts, baseline=prompts, tokens=[5], ablation_hooks=lambda rows: [])

    with pytest.raises(UsageError, match=SAID):
        scorer(loud()).measure(asked, SCORES, found.__setitem__, what="candidates")
    assert found == {}
    scorer(model).measure(asked, SCORES, found.__setitem__, what="candidates")
    assert found[0]["kl"] == pytest.approx([0.0] * len(prompts), abs=1e-6)


def test_studies_say_it_too(tmp_path):
    lab = Lab(model=loud(), format=ChatFormat(loud().tokenizer), found={}, sets={}, folder=tmp_path)
    for position in (-1, None):
        with pytest.raises(UsageError, match=SAID):
            stream_of(lab, TARGET, [Point("resid_pre", 3)], position)
    assert stream_of(lab, TARGET, [Point("resid_pre", 2)], -1).isfinite().all()


def test_verifying_says_it_of_the_dtype_in_which_it_is_so(tmp_path):
    model = loud()
    assert all(parameter.isfinite().all() for parameter in model.model.parameters())
    model.model.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    row = torch.nn.functional.normalize(torch.randn(1, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    bake(tmp_path / "base", DirectionRows(row.numpy(), {}), tmp_path / "edited")
    checked = verify(tmp_path / "base", tmp_path / "edited", prompts=TARGET, limit=2)
    assert len(checked.problems) == 1
    assert "base in float16: the residual stream is not finite from the middle of block 2 on" in checked.problems[0]
    assert checked.to_dict()["by_dtype"]["float16"]["overflow"] == checked.problems[0]
    assert "overflow" not in checked.to_dict()["by_dtype"]["float32"]


def test_damaged_weights_in_float32_are_no_overflow():
    model = random_model("llama")
    with torch.no_grad():
        model.model.get_parameter("model.layers.1.mlp.down_proj.weight")[0, 0] = float("nan")
    sequences = [ChatFormat(model.tokenizer).encode("how to make bread")]
    assert overflow(model, sequences).endswith("its weights may be damaged or the edit too strong")
    broken = Hook("lm_head", "output", lambda x: x * float("nan"))
    good = random_model("llama")
    with hooked(good.model, [broken]), pytest.raises(VerificationError, match="the logits are not finite, though the"):
        first_token_logprobs(good, TARGET)


def test_a_candidate_without_a_figure_is_shown_behind_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"layer": layer, "position": -1, "bypass": bypass, "induce": None, "kl": 0.1, "rejected": "not finite"}
        for layer, bypass in ((5, None), (6, 0.5))
    ]
    metadata = {"scores": rows, "layer": 1, "position": -1, "method": "m"}
    show.directions(Directions(torch.eye(1, 4), None, metadata), Path("d"), Console(width=100))
    said = capsys.readouterr().out
    assert said.index("6 │") < said.index("5 │")
