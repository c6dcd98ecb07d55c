"""Sound inputs of each family: by the forward's signature, else by model type."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weight_edit.anatomy.narrow.sub_configs import parts

FRAMES = 32


@dataclass
class Sounds:
    """Random sounds for one model; each method makes one form of input."""

    config: Any
    takes: set[str]
    generator: torch.Generator

    def size(self, *keys: str, default: int) -> int:
        """A size from a part's config other than text or vision."""
        for name, part in parts(self.config):
            if name.startswith(("text", "vision")):
                continue
            for holder in (part, *(inner for _, inner in parts(part))):
                for key in keys:
                    value = getattr(holder, key, None)
                    if isinstance(value, int):
                        return value
        return default

    @property
    def bands(self) -> int:
        """The number of frequency bands in a frame."""
        return self.size("num_mel_bins", "input_dim", "feature_size", "input_feat_size", default=80)

    def noise(self, *shape: int) -> Tensor:
        """A random sound."""
        return torch.randn(shape, generator=self.generator)

    def bands_first(self) -> dict[str, Any] | None:
        """Frames (1, bands, frames) as for Whisper's encoder, without padding."""
        frames = 2 * self.size("max_source_positions", "n_window", default=FRAMES // 2)
        return self.masked({"input_features": self.noise(1, self.bands, frames)}, frames)

    def frames_first(self) -> dict[str, Any] | None:
        """Frames (1, frames, bands), without padding."""
        return self.masked({"input_features": self.noise(1, FRAMES, self.bands)}, FRAMES)

    def frames_alone(self) -> dict[str, Any] | None:
        """Granite speech: frames (1, frames, bands), with a mask of tokens, all of them real."""
        return {"input_features": self.noise(1, FRAMES, self.bands)}

    def stacked(self) -> dict[str, Any] | None:
        """Fun-ASR: rows of concatenated frames (1, rows, frames * bands)."""
        width = self.bands * self.size("num_stacked_frames", default=1)
        return self.masked({"input_features": self.noise(1, FRAMES, width)}, FRAMES)

    def subsampled(self) -> dict[str, Any] | None:
        """Gemma 4: as many bands as the first convolution has channels, so that one row is left."""
        bands = int(self.config.audio_config.subsampling_conv_channels[0])
        mask = torch.ones(1, FRAMES, dtype=torch.bool)
        return {"input_features": self.noise(1, FRAMES, bands), "input_features_mask": mask}

    def waveform(self) -> dict[str, Any] | None:
        """Gemma 4 unified: one token per stretch of the waveform."""
        width = self.size("audio_embed_dim", default=self.bands)
        return {"input_features": self.noise(1, 6, width), "input_features_mask": torch.ones(1, 6, dtype=torch.bool)}

    def sized(self) -> dict[str, Any] | None:
        """Phi-4: frames first, and the number of tokens that they become."""
        audio = self.config.audio_config
        rows = 4
        frames = self.noise(1, rows * audio.time_reduction, audio.input_size)
        return {"audio_input_features": frames, "audio_embed_sizes": torch.tensor([rows]), "sound_tokens": rows}

    def padded(self) -> dict[str, Any] | None:
        """MOSS: bands first, with the mask of a waveform that is one chunk."""
        given = self.bands_first()
        return given and {**given, "padding_mask": torch.ones(1, 100, dtype=torch.long)}

    def quartered(self) -> dict[str, Any] | None:
        """Qwen2-Audio: bands first; one token per four frames."""
        given = self.bands_first()
        return given and {**given, "sound_tokens": given["input_features"].shape[-1] // 4}

    def samples(self) -> dict[str, Any] | None:
        """Apertus 1.5: a waveform (1, 1, samples) of two codes, without padding."""
        count = 2 * math.prod(self.config.audio_config.upsampling_ratios)
        return {"input_values": self.noise(1, 1, count), "padding_mask": torch.ones(1, count, dtype=torch.long)}

    def masked(self, given: dict[str, Any], frames: int) -> dict[str, Any]:
        """The inputs with a mask of real frames, under the forward's name for it."""
        for key in ("input_features_mask", "feature_attention_mask"):
            if key in self.takes:
                given[key] = torch.ones(1, frames, dtype=torch.long)
        return given


SOUNDS: dict[str, Callable[[Sounds], dict[str, Any] | None]] = {
    "apertus1p5": Sounds.samples,
    "audioflamingo3": Sounds.bands_first,
    "fun_asr_nano": Sounds.stacked,
    "gemma4": Sounds.subsampled,
    "gemma4_unified": Sounds.waveform,
    "glmasr": Sounds.bands_first,
    "granite_speech": Sounds.frames_alone,
    "granite_speech_plus": Sounds.frames_alone,
    "moss_transcribe_diarize": Sounds.padded,
    "nemo_speechlm": Sounds.frames_first,
    "phi4_multimodal": Sounds.sized,
    "qwen2_5_omni_thinker": Sounds.bands_first,
    "qwen2_audio": Sounds.quartered,
    "qwen3_asr": Sounds.bands_first,
    "qwen3_omni_moe_thinker": Sounds.bands_first,
    "voxtral": Sounds.bands_first,
}
"""Model type -> form of its sounds; signatures do not tell the order of the axes."""
