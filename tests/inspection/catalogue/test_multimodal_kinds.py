"""Multimodal kinds without a decoder that can be edited are refused, and decoders are not."""

import pytest
from transformers import CONFIG_MAPPING

from tests.helpers.multimodal import IMAGES, SOUNDS
from weight_edit.anatomy.narrow.refused_kinds import refuse_multimodal


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("blip", "is the decoder of an encoder-decoder"),
        ("diffusion_gemma", "different streams"),
        ("evolla", "no language model of transformers' mappings"),
        ("florence2", "is an encoder-decoder"),
        ("pi0", "no logits of a next token"),
        ("pix2struct", "is an encoder-decoder"),
        ("pp_formulanet", "is an encoder-decoder"),
        ("t5gemma2", "is an encoder-decoder"),
        ("udop", "is an encoder-decoder"),
        ("vision-encoder-decoder", "is an encoder-decoder"),
    ],
)
def test_kinds_without_a_decoder_that_can_be_edited_are_refused(model_type, reason):
    assert reason in refuse_multimodal(CONFIG_MAPPING[model_type]())


def test_a_decoder_family_with_an_encoder_decoder_inside_is_refused():
    config = CONFIG_MAPPING["llava"](text_config={"model_type": "t5"})
    assert "encoder-decoder as its language model" in refuse_multimodal(config)


@pytest.mark.parametrize("model_type", IMAGES + SOUNDS)
def test_decoders_are_not_refused(model_type):
    assert refuse_multimodal(CONFIG_MAPPING[model_type]()) is None
