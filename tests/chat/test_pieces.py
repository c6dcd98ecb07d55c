"""Tokens as pieces of text: characters are whole, and nothing is lost."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from weight_edit.chat.pieces import TextPieces


@pytest.fixture(scope="module")
def by_bytes() -> PreTrainedTokenizerFast:
    """A tokenizer whose every token is one byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("text", ["plain text", "naïve 漢字 🙂 👩‍👧", " spaces  first", "ends in é", "\n\tline\n"])
def test_pieces_are_whole_characters_and_the_text(by_bytes: PreTrainedTokenizerFast, text: str) -> None:
    pieces = TextPieces(by_bytes)
    tokens = by_bytes.encode(text)
    assert len(tokens) == len(text.encode())
    found = [pieces.push(token) for token in tokens]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(found)
    assert [piece for piece in found if piece] == list(text)
    assert pieces.rest() == ""


def test_a_character_that_is_never_completed_comes_at_the_end(by_bytes: PreTrainedTokenizerFast) -> None:
    pieces = TextPieces(by_bytes)
    tokens = by_bytes.encode("a漢")[:-1]
    assert [pieces.push(token) for token in tokens] == ["a", "", ""]
    assert pieces.rest() == "\N{REPLACEMENT CHARACTER}"
    assert pieces.rest() == ""


def test_broken_bytes_hold_nothing_up(by_bytes: PreTrainedTokenizerFast) -> None:
    pieces = TextPieces(by_bytes)
    tokens = [by_bytes.encode("漢")[0], *by_bytes.encode("ok")]
    assert [pieces.push(token) for token in tokens] == ["", "\N{REPLACEMENT CHARACTER}o", "k"]
