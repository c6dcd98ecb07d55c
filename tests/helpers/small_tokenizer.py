"""A word tokenizer with a chat template, for small random models."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEXT = "tell me how to make paint cut bread steal cars sorry sure I cannot here is the way a red blue house"
WORDS = TEXT.split()

SPECIAL = ["<pad>", "<unk>", "<user>", "<assistant>", "<end>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


# Answers stand in a channel, and what is thought before in another: three special tokens open an answer.
CHANNELS = (
    "{% for m in messages %}<|begin|>{{ m['role'] }}"
    "{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}<|body|>{{ m['content'] }}"
    "{{ '<|done|>' if loop.last and m['role'] == 'assistant' else '<|stop|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant{% endif %}"
)
# One special token opens an answer and another closes it, before the turn ends.
RESPONSES = (
    "{% for m in messages %}<|turn|>{{ '<|bot|><|reply|>' if m['role'] == 'assistant' else '<|human|>' }}"
    "{{ m['content'] }}{{ '<|/reply|>' if m['role'] == 'assistant' else '' }}<|/turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|><|bot|>{% endif %}"
)
# An empty thought between special tokens stands before every answer.
EMPTY_THOUGHTS = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' %} <|muse|> <|mused|>{% endif %}"
    " {{ m['content'] }} <end> {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Content is a list of parts, and nothing else.
PARTS = (
    "{% for m in messages %}<{{ m['role'] }}>{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    " {{ part['text'] }}{% endif %}{% endfor %} <end> {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Answers begin with an empty thought where thinking is off.
SWITCHED = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}{% if add_generation_prompt %}"
    "<assistant>{% if enable_thinking is defined and enable_thinking is false %} <think> </think>{% endif %}{% endif %}"
)


def word_tokenizer(
    template: str | dict | None = CHAT_TEMPLATE, special: tuple[str, ...] = (), eos: str = "<end>"
) -> PreTrainedTokenizerFast:
    """One token per known word; ids 0 to 4 are special, and more special tokens follow the words."""
    words = [*WORDS, "analysis", "final", "assistant", "user"] if special else WORDS
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token=eos,
        additional_special_tokens=["<user>", "<assistant>", *special],
    )
    fast.chat_template = template
    return fast


def channel_tokenizer() -> PreTrainedTokenizerFast:
    """Of a model that thinks in one channel and answers in another."""
    return word_tokenizer(CHANNELS, ("<|begin|>", "<|channel|>", "<|body|>", "<|stop|>", "<|done|>"), "<|done|>")


def musing_tokenizer() -> PreTrainedTokenizerFast:
    """Of a model that thinks between special tokens of its own."""
    return word_tokenizer(EMPTY_THOUGHTS, ("<|muse|>", "<|mused|>"))


def response_tokenizer() -> PreTrainedTokenizerFast:
    """Of a model whose answers stand between two special tokens."""
    special = ("<|turn|>", "<|human|>", "<|bot|>", "<|reply|>", "<|/reply|>", "<|/turn|>")
    return word_tokenizer(RESPONSES, special, "<|/turn|>")
