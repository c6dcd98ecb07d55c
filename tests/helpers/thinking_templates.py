"""Small tokenizers whose chat templates open, close or leave out thoughts."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
# A model that writes <think> itself, and whose template gives the last answer an empty thought.
QWEN = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n"
    "{% endif %}{{ m['content'] }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# A template that opens the thought, and one that closes it: thinking switched off.
R1 = TURNS + "{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}"
OFF = TURNS + "{% if add_generation_prompt %}<|assistant|>\n<think>\n\n</think>\n\n{% endif %}"
PLAIN = TURNS + "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"


def tokenizer(template, tags=True):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    core = Tokenizer(models.BPE({token: index for index, token in enumerate([*special, *alphabet])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    if tags:
        core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", additional_special_tokens=special[:3])
    fast.chat_template = template
    return fast
