"""Codes of a few bits in words of 32: one stream of bits, lowest first, along rows or along columns.

A number of bits that does not divide 32 lets codes lie across two words, so that words go by periods: as many as hold a
whole number of codes.
"""

from math import gcd

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Codes = NDArray[np.uint8]

WORD = 32


def period(bits: int) -> tuple[int, int]:
    """(codes, words) of a period."""
    shared = gcd(bits, WORD)
    return WORD // shared, bits // shared


def words_of(count: int, bits: int) -> int:
    """The number of words that hold a number of codes."""
    return -(-count * bits // WORD)


def unpack(words: Words, bits: int, count: int, axis: int = 1) -> Codes:
    """The first `count` codes in words along an axis, one per byte.

    Args:
        words: two axes; as many along `axis` as `words_of` says.
        bits: of a code, 1 to 8.
    """
    if bits == 8 and axis == 1 and words.flags.c_contiguous:
        return words.view(np.uint8)[:, :count]
    whole = _whole(words if axis == 0 else words.T, bits)
    codes_per, words_per = period(bits)
    codes = np.empty((len(whole) // words_per * codes_per, whole.shape[1]), np.uint8, order="C" if axis == 0 else "F")
    mask = np.uint8((1 << bits) - 1)
    for place in range(codes_per):
        word, shift = divmod(place * bits, WORD)
        low = whole[word::words_per] >> np.uint32(shift)
        if shift + bits > WORD:
            low |= whole[word + 1 :: words_per] << np.uint32(WORD - shift)
        np.bitwise_and(low.astype(np.uint8), mask, out=codes[place::codes_per])
    return codes[:count] if axis == 0 else codes[:count].T


def pack(codes: Codes, bits: int, axis: int = 1) -> Words:
    """Words with codes along an axis, zero behind the last one; the reverse of `unpack`."""
    if bits == 8 and axis == 1 and codes.shape[1] % 4 == 0:
        return np.ascontiguousarray(codes).view(np.uint32)
    along = codes if axis == 0 else codes.T
    codes_per, words_per = period(bits)
    groups = -(-len(along) // codes_per)
    words = np.zeros((groups * words_per, along.shape[1]), np.uint32, order="C" if axis == 0 else "F")
    for place in range(min(codes_per, len(along))):
        word, shift = divmod(place * bits, WORD)
        some = along[place::codes_per].astype(np.uint32)
        words[word::words_per][: len(some)] |= some << np.uint32(shift)
        if shift + bits > WORD:
            words[word + 1 :: words_per][: len(some)] |= some >> np.uint32(WORD - shift)
    words = words[: words_of(len(along), bits)]
    return words if axis == 0 else words.T


def _whole(words: Words, bits: int) -> Words:
    """Words along the first axis, with zeros behind them to a whole number of periods."""
    left = -len(words) % period(bits)[1]
    return words if not left else np.concatenate([words, np.zeros((left, words.shape[1]), np.uint32)])
