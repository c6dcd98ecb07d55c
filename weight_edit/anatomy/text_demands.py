"""What a forward on text needs beside token ids, as data: a few families never read text alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WITH_IMAGE = frozenset({"idefics", "kosmos-2", "kosmos-2.5"})
"""Model types whose forward refuses text alone, though its signature does not say so."""


def _silence(config: Any, ids: Tensor) -> dict[str, Tensor]:
    """Voxtral Realtime adds a sound to every token: as many frames as the tokens last."""
    frames = ids.shape[1] * config.audio_length_per_tok
    return {"input_features": torch.zeros(ids.shape[0], config.audio_config.num_mel_bins, frames)}


def _codes(config: Any, ids: Tensor) -> dict[str, Tensor]:
    """Kyutai: a token of text and one of each codebook at every place."""
    codes = torch.arange(ids.numel() * config.num_codebooks).view(*ids.shape, config.num_codebooks)
    return {"input_ids": torch.cat([ids[..., None], codes % (config.codebook_vocab_size - 1)], dim=-1)}


DEMANDS: dict[str, Callable[[Any, Tensor], dict[str, Tensor]]] = {
    "voxtral_realtime": _silence,
    "kyutai_speech_to_text": _codes,
}
"""What else a forward on text needs, by model type."""
