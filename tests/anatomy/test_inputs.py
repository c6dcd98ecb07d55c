"""Every family gets text, image and sound inputs that reach the residual stream, decided by the seed."""

import pytest
import torch

from tests.helpers.committed_verdicts import running
from tests.helpers.multimodal import IMAGES, SOUNDS, logits, small_model
from weight_edit.anatomy.inputs.inputs import audio_inputs, image_inputs, text_inputs
from weight_edit.anatomy.narrow.towers import special_tokens
from weight_edit.inspection.catalogue.samples import sample_config

NEVER_ALONE = {"blip-2", "idefics", "kosmos-2"}


def numbers(value):
    return value if isinstance(value, list | tuple) else [value]


@pytest.mark.families
@pytest.mark.parametrize("model_type", running(IMAGES + SOUNDS))
def test_a_forward_on_text_alone_is_finite(model_type):
    model = small_model(model_type)
    given = logits(model, text_inputs(model, 12, seed=3))
    assert torch.isfinite(given).all()
    assert given.std() > 1e-3


@pytest.mark.families
@pytest.mark.parametrize("model_type", running(IMAGES))
def test_an_image_enters_the_stream(model_type):
    model = small_model(model_type)
    inputs = image_inputs(model, model.config, seed=3)
    assert inputs is not None
    key = next(key for key in ("pixel_values", "image_pixel_values", "flattened_patches") if key in inputs)
    first = logits(model, inputs)
    other = logits(model, {**inputs, key: torch.randn(inputs[key].shape, generator=torch.Generator().manual_seed(8))})
    assert torch.isfinite(first).all()
    assert (first - other).abs().max() > 1e-3


@pytest.mark.parametrize("model_type", ["granite_speech", "qwen2_audio", "qwen3_omni_moe", "voxtral"])
def test_a_sound_enters_the_stream(model_type):
    model = small_model(model_type)
    inputs = audio_inputs(model, model.config, seed=3)
    assert inputs is not None
    first = logits(model, inputs)
    other = logits(model, {**inputs, "input_features": inputs["input_features"].flip(-1)})
    assert torch.isfinite(first).all()
    assert (first - other).abs().max() > 1e-3


def test_a_family_that_is_in_no_list_of_sounds_has_no_audio_inputs():
    model = small_model("llava")
    assert audio_inputs(model, model.config, seed=1) is None


@pytest.mark.families
@pytest.mark.parametrize("model_type", sorted(set(IMAGES + SOUNDS) - NEVER_ALONE))
def test_text_holds_no_special_token(model_type):
    model = small_model(model_type)
    ids = text_inputs(model, 200, seed=1)["input_ids"]
    taken = {number for value in special_tokens(model.config).values() for number in numbers(value)}
    taken.add(getattr(model.config.get_text_config(), "pad_token_id", None))
    assert not taken & set(ids.flatten().tolist())


@pytest.mark.parametrize("model_type", sorted(NEVER_ALONE))
def test_a_family_that_never_reads_text_alone_gets_an_image(model_type):
    model = small_model(model_type)
    assert "pixel_values" in text_inputs(model, 12, seed=1)


@pytest.mark.parametrize("model_type", ["qwen2_audio", "voxtral"])
def test_a_family_without_images_has_no_image_inputs(model_type):
    model = small_model(model_type)
    assert image_inputs(model, model.config, seed=1) is None


@pytest.mark.parametrize("model_type", ["qwen2_vl", "llava", "mllama"])
def test_the_seed_decides(model_type):
    model = small_model(model_type)
    once, again, other = (image_inputs(model, model.config, seed=seed) for seed in (1, 1, 2))
    assert once.keys() == again.keys() == other.keys()
    assert all(torch.equal(once[key], again[key]) for key in once)
    assert not torch.equal(once["pixel_values"], other["pixel_values"])


def test_text_inputs_take_a_config_alone():
    config = sample_config("llama")
    ids = text_inputs(config, 9, seed=1, batch=3)["input_ids"]
    assert ids.shape == (3, 9)
    assert int(ids.max()) < config.vocab_size
    assert int(ids.min()) >= 3
