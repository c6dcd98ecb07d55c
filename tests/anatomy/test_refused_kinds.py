"""Which of transformers' causal language models are no decoders, by a rule and not by name."""

from typing import Any

import pytest
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.helpers.committed_verdicts import TEXT
from weight_edit.anatomy.narrow.refused_kinds import refuse_kinds
from weight_edit.inspection.catalogue.samples import published_config

REFUSED = {
    "is an encoder-decoder": {
        "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "musicgen", "musicgen_melody",
        "mvp", "pegasus", "plbart", "prophetnet", "whisper",
    },
    "is the decoder of an encoder-decoder": {"trocr"},
    "is an encoder and a decoder in one": {"blt"},
    "is an encoder (": {
        "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
        "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta",
        "xlm-roberta-xl", "xmod",
    },
    "reads in permuted order": {"xlnet"},
    "drafts tokens for another model": {"gemma4_assistant", "gemma4_unified_assistant"},
}  # fmt: skip


def test_each_refusal_says_why_and_nothing_else_is_refused() -> None:
    # Those that another release lists besides are told of by tests/catalogue/test_page.py.
    known = set(TEXT) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    reasons = {kind: refuse_kinds(published_config(kind)) for kind in known}
    found = {
        start: {kind for kind, reason in reasons.items() if reason is not None and reason.startswith(start)}
        for start in REFUSED
    }
    assert found == {start: kinds & known for start, kinds in REFUSED.items()}
    assert {kind for kind, reason in reasons.items() if reason} == set().union(*found.values())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("bert", {"is_decoder": True}), ("gpt_neox", {}), ("xglm", {}), ("modernbert-decoder", {}), ("gpt2", {})],
)
def test_decoders_with_an_encoders_settings_pass(kind: str, settings: dict[str, Any]) -> None:
    assert refuse_kinds(AutoConfig.for_model(kind, **settings)) is None


def test_a_decoder_with_cross_attention_is_refused() -> None:
    reason = refuse_kinds(AutoConfig.for_model("gpt2", add_cross_attention=True))
    assert reason is not None
    assert "attends to an encoder" in reason
