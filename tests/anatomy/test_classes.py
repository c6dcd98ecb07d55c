"""A configuration names the class of transformers that loads the model, or is refused by name."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

from weight_edit.anatomy.narrow.classes import auto_class, model_class, speaking_config
from weight_edit.errors import UnsupportedError


@pytest.mark.parametrize(
    ("model_type", "architecture", "name"),
    [
        ("llama", None, "LlamaForCausalLM"),
        ("gemma3", None, "Gemma3ForConditionalGeneration"),
        ("gemma3_text", None, "Gemma3ForCausalLM"),
        ("qwen3_5", None, "Qwen3_5ForConditionalGeneration"),
        ("qwen3_5", "Qwen3_5ForCausalLM", "Qwen3_5ForCausalLM"),
        ("qwen3_5", "SomethingElse", "Qwen3_5ForConditionalGeneration"),
        ("llama4", "Llama4ForCausalLM", "Llama4ForCausalLM"),
        ("qwen2_vl", None, "Qwen2VLForConditionalGeneration"),
        ("qwen2_audio", None, "Qwen2AudioForConditionalGeneration"),
        ("audioflamingo3", None, "AudioFlamingo3ForConditionalGeneration"),
        ("phi4_multimodal", None, "Phi4MultimodalForCausalLM"),
    ],
)
def test_the_class_that_a_config_means(model_type, architecture, name):
    config = AutoConfig.for_model(model_type)
    config.architectures = [architecture] if architecture else None
    assert model_class(config).__name__ == name


def test_a_model_with_code_of_its_own_goes_through_the_auto_class_that_it_names():
    config = AutoConfig.for_model("llava")
    config.auto_map = {"AutoModelForCausalLM": "modeling_own.Own"}
    assert auto_class(config) is AutoModelForCausalLM
    assert auto_class(AutoConfig.for_model("llava")) is AutoModelForMultimodalLM


def test_an_omni_model_speaks_through_its_thinker():
    config = AutoConfig.for_model("qwen2_5_omni")
    assert speaking_config(config) is config.thinker_config
    assert model_class(speaking_config(config)).__name__ == "Qwen2_5OmniThinkerForConditionalGeneration"
    plain = AutoConfig.for_model("qwen2_vl")
    assert speaking_config(plain) is plain


def test_a_model_that_is_no_language_model_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="model type 'clip' is no language model"):
        model_class(AutoConfig.for_model("clip"))
