"""Image inputs of each family: by the forward's signature, else by model type."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.narrow.sub_configs import parts

ROWS, COLUMNS = 4, 8
"""Patches of an image where its size is free."""


@dataclass
class Images:
    """Random images for one model; each method makes one form of input.

    A value that is a function is given the mask of image tokens, bool (1, tokens), once the tokens are placed. The
    entry "image_tokens" says how many tokens the image fills, where the model's `get_image_features` does not.
    """

    model: nn.Module
    config: Any
    takes: set[str]
    generator: torch.Generator

    @property
    def tower(self) -> Any:
        """The config of the vision tower."""
        for start in ("vision", "vq"):
            for key, part in parts(self.config):
                if key.startswith(start):
                    return part
        return self.config

    def size(self, *keys: str, default: int) -> int:
        """A size from the tower's config, or from the whole config."""
        holders = (self.tower, *(part for _, part in parts(self.tower)), self.config)
        for holder in holders:
            for key in keys:
                value = getattr(holder, key, None)
                value = value[0] if isinstance(value, list | tuple) else value
                if isinstance(value, int):
                    return value
        return default

    @property
    def channels(self) -> int:
        """The number of colour channels."""
        return self.size("num_channels", "in_channels", default=3)

    @property
    def side(self) -> int:
        """Pixels along each side of an image."""
        return self.size("image_size", "resolution", default=16)

    @property
    def patch(self) -> int:
        """Pixels along each side of a patch."""
        return self.size("patch_size", default=4)

    @property
    def flat(self) -> int:
        """The length of a flat patch of one frame."""
        return self.channels * self.patch**2

    def noise(self, *shape: int) -> Tensor:
        """Random pixels."""
        return torch.randn(shape, generator=self.generator)

    def generic(self) -> dict[str, Any] | None:
        """Inputs chosen by the forward's signature."""
        if "pixel_values" not in self.takes:
            return None
        if "image_grid_thw" in self.takes:
            return self.grid()
        if "spatial_shapes" in self.takes:
            return self.shaped()
        if "image_grid_hw" in self.takes:
            return {"pixel_values": self.noise(ROWS * COLUMNS, self.flat), "image_grid_hw": _sizes(ROWS, COLUMNS)}
        if "target_sizes" in self.takes:
            return {
                "pixel_values": self.noise(1, self.channels, self.patch, ROWS * COLUMNS * self.patch),
                "target_sizes": _sizes(ROWS, COLUMNS),
            }
        if "image_position_ids" in self.takes:
            return self.positioned()
        return self.square()

    def grid(self) -> dict[str, Any]:
        """Flat patches (patches, channels * time * patch * patch), and their grid."""
        time = self.size("temporal_patch_size", "patch_temporal", default=1)
        given: dict[str, Any] = {
            "pixel_values": self.noise(ROWS * COLUMNS, self.flat * time),
            "image_grid_thw": torch.tensor([[1, ROWS, COLUMNS]]),
        }
        if "image_merge_sizes" in self.takes:
            given["image_merge_sizes"] = torch.tensor([2])
        return given

    def square_patches(self) -> dict[str, Any]:
        """Patches (patches, channels, patch, patch), and their grid."""
        given = self.grid()
        given["pixel_values"] = self.noise(ROWS * COLUMNS, self.channels, self.patch, self.patch)
        return given

    def merged_patches(self) -> dict[str, Any]:
        """Merged square patches with the colour axis last, and their grid."""
        given = self.grid()
        merge = self.size("spatial_merge_size", default=2)
        side = merge * self.patch
        given["pixel_values"] = self.noise(ROWS * COLUMNS, side, side, self.channels)
        return given

    def shaped(self) -> dict[str, Any]:
        """Flat patches with a mask and the shape of each image."""
        return {
            "pixel_values": self.noise(1, ROWS * COLUMNS, self.flat),
            "spatial_shapes": _sizes(ROWS, COLUMNS),
            "pixel_attention_mask": torch.ones(1, ROWS * COLUMNS, dtype=torch.long),
        }

    def positioned(self) -> dict[str, Any]:
        """Flat patches with the column and row of each."""
        rows, columns = torch.meshgrid(torch.arange(ROWS), torch.arange(ROWS), indexing="ij")
        flat = self.size("model_patch_size", default=self.patch) ** 2 * self.channels
        return {
            "pixel_values": self.noise(1, ROWS * ROWS, flat),
            "image_position_ids": torch.stack([columns.flatten(), rows.flatten()], dim=-1)[None],
        }

    def square(self) -> dict[str, Any]:
        """One image (1, channels, side, side)."""
        given: dict[str, Any] = {"pixel_values": self.noise(1, self.channels, self.side, self.side)}
        # Only towers that take any size are told it; others have one layer to take features from.
        told = self.tower.model_type == "pixtral" or not hasattr(self.config, "vision_feature_select_strategy")
        if "image_sizes" in self.takes and told:
            given["image_sizes"] = _sizes(self.side, self.side)
        if "high_res_pixel_values" in self.takes:
            given["high_res_pixel_values"] = given["pixel_values"].clone()
        return given

    def halved(self) -> dict[str, Any]:
        """Convolutional towers that halve an image five times: (1, channels, 64, 64)."""
        return {"pixel_values": self.noise(1, self.channels, 64, 64)}

    def tiles(self) -> dict[str, Any]:
        """Perception LM: tiles (1, tiles, channels, side, side) of the size in timm's config."""
        side, _ = self.tower.model_args["img_size"]
        return {"pixel_values": self.noise(1, 1, self.channels, side, side)}

    def numbered(self) -> dict[str, Any]:
        """One image in a list of images (1, 1, channels, side, side)."""
        given = self.square()
        given["pixel_values"] = given["pixel_values"][None]
        if "pixel_attention_mask" in self.takes:
            given["pixel_attention_mask"] = torch.ones(1, 1, self.side, self.side, dtype=torch.bool)
        return given

    def tiled(self) -> dict[str, Any]:
        """One image as a list of tiles, without padding tiles."""
        return {**self.numbered(), "pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool)}

    def cropped(self) -> dict[str, Any]:
        """An image and its tiles (1, tiles + 1, channels, side, side), in a listed resolution."""
        height, width = self.config.image_grid_pinpoints[0]
        count = (height // self.side) * (width // self.side) + 1
        return {
            "pixel_values": self.noise(1, count, self.channels, self.side, self.side),
            "image_sizes": _sizes(height, width),
        }

    def crossed(self) -> dict[str, Any]:
        """Mllama: tiles read by cross-attention; no token stands for the image."""
        tiles = self.tower.max_num_tiles
        return {
            "pixel_values": self.noise(1, 1, tiles, self.channels, self.side, self.side),
            "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
            "aspect_ratio_mask": torch.ones(1, 1, tiles, dtype=torch.long),
            "cross_attention_mask": lambda place: torch.ones(*place.shape, 1, tiles, dtype=torch.long),
            "image_tokens": 1,
        }

    def gated(self) -> dict[str, Any]:
        """Idefics: an image read by gated cross-attention from every token."""
        return {
            "pixel_values": self.noise(1, 1, self.channels, self.side, self.side),
            "image_attention_mask": lambda place: torch.ones(*place.shape, 1, dtype=torch.long),
            "image_tokens": 0,
        }

    def before(self) -> dict[str, Any]:
        """GIT: an image placed before the text."""
        return {**self.square(), "image_tokens": 0}

    def queried(self) -> dict[str, Any]:
        """Kosmos-2: an image read by learned queries, at the places of a mask."""
        return {
            **self.square(),
            "image_embeds_position_mask": lambda place: place.long(),
            "image_tokens": self.config.latent_query_num,
        }

    def numbered_patches(self) -> dict[str, Any]:
        """Kosmos-2.5: flat patches that begin with their row and column."""
        count = ROWS * ROWS
        place = torch.stack([torch.arange(count) // ROWS + 1, torch.arange(count) % ROWS + 1], dim=-1)
        pixels = self.noise(1, count, self.tower.patch_embed_hidden_size)
        return {
            "flattened_patches": torch.cat([place[None].float(), pixels], dim=-1),
            "width": torch.tensor([ROWS]),
            "height": torch.tensor([ROWS]),
            "image_embeds_position_mask": lambda place: place.long(),
            "image_tokens": self.config.latent_query_num,
        }

    def pooled(self) -> dict[str, Any]:
        """Molmo 2: patches of a crop, and the patches that each token pools."""
        corners = [row * ROWS + column for row in (0, 2) for column in (0, 2)]
        return {
            "pixel_values": self.noise(1, ROWS * ROWS, self.flat),
            "image_token_pooling": torch.tensor([[c, c + 1, c + ROWS, c + ROWS + 1] for c in corners]),
            "image_grids": torch.tensor([[2, 2, 0, 0]]),
            "image_num_crops": torch.tensor([1]),
        }

    def instructed(self) -> dict[str, Any]:
        """InstructBLIP: the query transformer reads words too."""
        given: dict[str, Any] = {**self.square(), "image_tokens": self.config.num_query_tokens}
        if "qformer_input_ids" in self.takes:
            given["qformer_input_ids"] = torch.arange(1, 5)[None]
            given["qformer_attention_mask"] = torch.ones(1, 4, dtype=torch.long)
        return given

    def filmed(self) -> dict[str, Any]:
        """InstructBLIP for videos: four frames."""
        given = self.instructed()
        given["pixel_values"] = self.noise(1, 4, self.channels, self.side, self.side)
        given["image_tokens"] = 4 * self.config.num_query_tokens
        return given

    def folded(self) -> dict[str, Any]:
        """Inkling: film patches (patches, time, side, side, channels), one token each."""
        time = self.size("temporal_patch_size", default=1)
        return {"pixel_values": self.noise(4, time, self.patch, self.patch, self.channels)}

    def row_of_patches(self) -> dict[str, Any]:
        """Fuyu: flat patches (1, patches, patch * patch * channels)."""
        return {"pixel_values": self.noise(1, ROWS * ROWS, self.flat), "image_tokens": ROWS * ROWS}

    def whole_and_crop(self) -> dict[str, Any]:
        """Phi-4 multimodal: an image and one crop, patches halved, with separators."""
        grid = self.side // self.patch
        half = grid // 2
        return {
            "image_pixel_values": self.noise(1, 2, self.channels, self.side, self.side),
            "image_sizes": _sizes(self.side, self.side),
            "image_attention_mask": torch.ones(1, 2, grid, grid, dtype=torch.bool),
            "image_tokens": 2 * half * (half + 1) + 1,
        }


def _sizes(height: int, width: int) -> Tensor:
    return torch.tensor([[height, width]])


IMAGES: dict[str, Callable[[Images], dict[str, Any] | None]] = {
    "blip-2": Images.instructed,
    "fast_vlm": Images.halved,
    "fuyu": Images.row_of_patches,
    "gemma3n": Images.halved,
    "git": Images.before,
    "granite_docling": Images.tiled,
    "granite4_vision": Images.cropped,
    "idefics": Images.gated,
    "idefics2": Images.numbered,
    "idefics3": Images.numbered,
    "inkling2": Images.merged_patches,
    "inkling_mm_model": Images.folded,
    "instructblip": Images.instructed,
    "instructblipvideo": Images.filmed,
    "kimi_k25": Images.square_patches,
    "kosmos-2": Images.queried,
    "kosmos-2.5": Images.numbered_patches,
    "llava_next": Images.cropped,
    "llava_next_video": Images.cropped,
    "llava_onevision": Images.cropped,
    "mllama": Images.crossed,
    "molmo2": Images.pooled,
    "paddleocr_vl": Images.square_patches,
    "perception_lm": Images.tiles,
    "phi4_multimodal": Images.whole_and_crop,
    "smolvlm": Images.numbered,
}
"""Model type -> form of its images, where the forward's signature does not tell it."""
