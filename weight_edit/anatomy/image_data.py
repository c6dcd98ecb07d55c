"""Images as each family takes them: generic by what the forward takes, and by model type where nothing tells."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.towers import parts

IMAGE_TOKEN: dict[str, str] = {}
"""The key of the image token where it is called otherwise."""


@dataclass
class Images:
    """What is known about how a model takes images."""

    model: nn.Module
    config: Any
    takes: set[str]
    generator: torch.Generator

    @property
    def tower(self) -> Any:
        """The config of the vision tower."""
        for key, part in parts(self.config):
            if key.startswith("vision"):
                return part
        return next((part for key, part in parts(self.config) if key.startswith("vq")), self.config)

    def size(self, *keys: str, default: int) -> int:
        """A size of the tower, or of the whole."""
        for holder in (self.tower, self.config):
            for key in keys:
                value = getattr(holder, key, None)
                if isinstance(value, list | tuple):
                    value = value[0]
                if isinstance(value, int):
                    return value
        return default

    @property
    def channels(self) -> int:
        """Colours."""
        return self.size("num_channels", "in_channels", default=3)

    @property
    def side(self) -> int:
        """Pixels along each side of an image."""
        return self.size("image_size", "resolution", default=16)

    @property
    def patch(self) -> int:
        """Pixels along each side of a patch."""
        return self.size("patch_size", default=4)

    def noise(self, *shape: int) -> Tensor:
        """Random pixels."""
        return torch.randn(shape, generator=self.generator)

    def generic(self) -> dict[str, Any] | None:
        """Inputs by what the forward takes."""
        if "pixel_values" not in self.takes:
            return None
        if "image_grid_thw" in self.takes:
            return self.grid()
        if "spatial_shapes" in self.takes:
            return self.shaped()
        return self.square()

    def grid(self) -> dict[str, Any]:
        """Flat patches of an image of 4 by 8 patches (patches, channels * time * patch * patch), and its grid."""
        time = self.size("temporal_patch_size", "patch_temporal", default=1)
        rows, columns = 4, 8
        return {
            "pixel_values": self.noise(rows * columns, self.channels * time * self.patch * self.patch),
            "image_grid_thw": torch.tensor([[1, rows, columns]]),
        }

    def shaped(self) -> dict[str, Any]:
        """Flat patches with a mask and the shape of each image."""
        count = 16
        return {
            "pixel_values": self.noise(1, count, self.channels * self.patch**2),
            "spatial_shapes": torch.tensor([[4, 4]]),
            "pixel_attention_mask": torch.ones(1, count, dtype=torch.long),
        }

    def square(self) -> dict[str, Any]:
        """One image (1, channels, side, side)."""
        given: dict[str, Any] = {"pixel_values": self.noise(1, self.channels, self.side, self.side)}
        if "image_sizes" in self.takes:
            given["image_sizes"] = torch.tensor([[self.side, self.side]])
        return given

    def numbered(self) -> dict[str, Any]:
        """One image in a row of images of one (1, 1, channels, side, side)."""
        given = self.square()
        given["pixel_values"] = given["pixel_values"][None]
        if "pixel_attention_mask" in self.takes:
            given["pixel_attention_mask"] = torch.ones(1, 1, self.side, self.side, dtype=torch.bool)
        return given


IMAGES: dict[str, Callable[[Images], dict[str, Any] | None]] = {
    "idefics2": Images.numbered,
    "idefics3": Images.numbered,
    "smolvlm": Images.numbered,
    "granite_docling": Images.numbered,
}
"""By model type, where the forward's signature does not tell the shape."""
