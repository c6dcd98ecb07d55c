"""Narrow configurations with encoders keep all text blocks, load back and build a small model."""

import json

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig

from tests.helpers.committed_verdicts import running
from tests.helpers.multimodal import IMAGES, SOUNDS, logits, small_model
from weight_edit.anatomy.inputs.inputs import image_inputs, text_inputs
from weight_edit.anatomy.narrow.classes import from_pretrained, speaking_config
from weight_edit.anatomy.narrow.narrow import narrow_config
from weight_edit.anatomy.narrow.sub_configs import is_multimodal
from weight_edit.anatomy.narrow.towers import narrow_multimodal, special_tokens
from weight_edit.errors import UsageError
from weight_edit.inspection.catalogue.sample_data import SAMPLES
from weight_edit.inspection.catalogue.samples import sample_multimodal

UNLIKE = ("_name_or_path", "transformers_version", "architectures", "dtype", "num_image_tokens", "head_dim")


def flat(value, path=""):
    if isinstance(value, dict):
        return {name: leaf for key, part in value.items() for name, leaf in flat(part, f"{path}.{key}").items()}
    return {path: value}


def whole(model_type):
    return speaking_config(CONFIG_MAPPING[model_type](**SAMPLES.get(model_type, {})))


@pytest.mark.families
@pytest.mark.parametrize("model_type", IMAGES + SOUNDS)
def test_all_text_blocks_stay_and_the_config_is_not_changed(model_type):
    config = whole(model_type)
    before = config.to_json_string()
    narrow = narrow_multimodal(config, narrow_config)
    assert config.to_json_string() == before
    assert narrow.get_text_config().num_hidden_layers == config.get_text_config().num_hidden_layers
    assert narrow.get_text_config().hidden_size == 64
    assert type(narrow) is type(config)


@pytest.mark.families
@pytest.mark.parametrize("model_type", IMAGES + SOUNDS)
def test_special_tokens_are_distinct_and_in_the_vocabulary(model_type):
    config, narrow = whole(model_type), narrow_multimodal(whole(model_type), narrow_config)
    old, new = special_tokens(config), special_tokens(narrow)
    assert old.keys() <= new.keys()
    pairs = {(repr(old[key]), repr(new[key])) for key in old if key != "image_token_id" or model_type != "chameleon"}
    assert len({first for first, _ in pairs}) == len({second for _, second in pairs}) == len(pairs)
    vocabulary = narrow.get_text_config().vocab_size
    for value in new.values():
        assert all(2 < number < vocabulary for number in (value if isinstance(value, list | tuple) else [value]))


@pytest.mark.families
@pytest.mark.parametrize("model_type", IMAGES + SOUNDS)
def test_a_narrow_config_is_read_as_it_was_saved(model_type, tmp_path):
    narrow = sample_multimodal(model_type)
    narrow.save_pretrained(tmp_path)
    saved, read = (flat(json.loads(json.dumps(c.to_dict()))) for c in (narrow, AutoConfig.from_pretrained(tmp_path)))
    differing = {key for key in saved.keys() | read.keys() if saved.get(key) != read.get(key)}
    assert not {key for key in differing if not key.endswith(UNLIKE)}


@pytest.mark.families
@pytest.mark.parametrize("model_type", running(IMAGES + SOUNDS))
def test_a_narrow_model_is_small_and_says_the_same_when_loaded_back(model_type, tmp_path):
    model = small_model(model_type)
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_000_000
    model.save_pretrained(tmp_path)
    again = from_pretrained(
        tmp_path, AutoConfig.from_pretrained(tmp_path), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    assert type(again) is type(model)
    for inputs in (text_inputs(model, 12, seed=2), image_inputs(model, model.config, seed=2)):
        if inputs is not None:
            assert (logits(again, inputs) - logits(model, inputs)).abs().max() < 1e-5


@pytest.mark.parametrize("model_type", ["qwen3_vl", "cohere_compass"])
def test_a_tower_has_the_blocks_whose_features_are_added_deep_in_the_text(model_type):
    narrow = sample_multimodal(model_type)
    indexes = list(narrow.vision_config.deepstack_visual_indexes)
    assert len(indexes) == len(whole(model_type).vision_config.deepstack_visual_indexes)
    assert sorted(set(indexes)) == sorted(indexes)
    assert max(indexes) < narrow.vision_config.depth


@pytest.mark.parametrize(
    ("model_type", "multimodal"),
    [("llama", False), ("dbrx", False), ("mpt", False), ("llava", True), ("phi4_multimodal", True)],
)
def test_a_config_with_towers_is_multimodal(model_type, multimodal):
    assert is_multimodal(CONFIG_MAPPING[model_type]()) is multimodal


def test_an_unknown_family_has_no_sample():
    with pytest.raises(UsageError, match="no model type 'nothing'"):
        sample_multimodal("nothing")
