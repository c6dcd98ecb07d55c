"""transformers' reader of GGUF files, and small files for it: what it makes of tensors is tried, never assumed."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from weight_edit.anatomy.disk.conversion import parameters_of
from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.anatomy.narrow.classes import from_pretrained
from weight_edit.errors import UnsupportedError, first_line

FILE = "model.gguf"
"""The name of a GGUF file that is given to transformers in a folder of its own."""

Values = NDArray[np.float32]


@dataclass(frozen=True)
class GgufReader:
    """transformers' reader for the files of one model.

    Attributes:
        metadata: of the model's file, by key; of lists of texts only their lengths.
    """

    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, file: Path) -> "GgufReader":
        """The reader for a file, of which the header is read.

        Raises:
            UnsupportedError: transformers does not read that header.
        """
        from transformers.integrations.gguf.reader import read_gguf_metadata

        try:
            return cls(read_gguf_metadata(str(file))[0])
        except MODEL_ERRORS as error:
            raise UnsupportedError(f"{file.name}: transformers does not read its header ({first_line(error)})") from error

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.metadata["general.architecture"])

    def parameters(self, model: Any, names: Iterable[str]) -> dict[str, str]:
        """Tensor -> the parameter that it goes into, by transformers' own names; others are left out.

        Args:
            model: a transformers model, also on the meta device.
            names: of the file's tensors.
        """
        from transformers.integrations.gguf.utils import get_gguf_conversion_mapping, is_gguf_arch_supported
        from transformers.modeling_gguf_pytorch_utils import (
            TENSOR_PROCESSORS,
            TensorProcessor,
            get_gguf_hf_weights_map,
        )

        if is_gguf_arch_supported(self.architecture):
            mapping = get_gguf_conversion_mapping(self.architecture, model.config)
            found = parameters_of(model, mapping, names, model.state_dict())
            return {name: parameter for name, parameter, _, _ in found}
        processor = TENSOR_PROCESSORS.get(self.architecture, TensorProcessor)(config={})
        try:
            known = get_gguf_hf_weights_map(model, processor)
        except NotImplementedError as error:
            raise UnsupportedError(
                f"the package gguf has no names for the architecture '{self.architecture}' ({first_line(error)}); a "
                "newer one may"
            ) from error
        # A stack of experts is a parameter without an ending, and a tensor with one.
        pairs = ((name, known.get(name, known.get(name.removesuffix(".weight")))) for name in names)
        state = model.state_dict()
        return {name: parameter for name, parameter in pairs if parameter is not None and parameter in state}

    def read(self, config: Any, tensors: Mapping[str, Values]) -> tuple[dict[str, Values], frozenset[str]]:
        """The parameters that transformers makes of tensors, and the names of those that it could not make.

        Args:
            config: of a model for which the tensors are; small, since all of it is written and loaded.
            tensors: by their names in the file.

        Raises:
            UnsupportedError: it fails on them.
        """
        with TemporaryDirectory(prefix="weight-edit-") as place:
            folder = Path(place)
            self._write(folder / FILE, config, tensors)
            try:
                model, info = load_with_transformers(
                    folder, config, dtype=torch.float32, ignore_mismatched_sizes=True, attn_implementation="eager"
                )
            except MODEL_ERRORS as error:
                raise UnsupportedError(
                    f"transformers fails on a small GGUF file of the architecture '{self.architecture}': "
                    f"{first_line(error)}"
                ) from error
            state = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
        bad = {*info["missing_keys"], *(each[0] for each in info["mismatched_keys"])}
        return state, frozenset(bad)

    def _write(self, path: Path, config: Any, tensors: Mapping[str, Values]) -> None:
        import gguf

        writer = gguf.GGUFWriter(path, self.architecture)
        try:
            for key, value in self._entries(config):
                if isinstance(value, bool):
                    writer.add_bool(key, value)
                elif isinstance(value, int):
                    writer.add_uint32(key, value) if 0 <= value < 2**32 else writer.add_int64(key, value)
                elif isinstance(value, float):
                    writer.add_float32(key, value)
                elif isinstance(value, str):
                    writer.add_string(key, value)
                elif isinstance(value, list | tuple) and value:
                    writer.add_array(key, list(value))
            for name, values in tensors.items():
                writer.add_tensor(name, values)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    def _entries(self, config: Any) -> Iterator[tuple[str, Any]]:
        """The metadata with the sizes of another config, under the keys by which transformers reads them."""
        from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

        kinds = (self.architecture, getattr(config, "model_type", ""), getattr(config, "model_type", "")[: -len("_text")])
        settings = next((GGUF_CONFIG_MAPPING[kind] for kind in kinds if kind in GGUF_CONFIG_MAPPING), {})
        own = f"{self.architecture}."
        for key, value in self.metadata.items():
            if key.startswith(own):
                setting = settings.get(key.removeprefix(own))
                ours = getattr(config, setting, None) if isinstance(setting, str) else None
                yield key, value if ours is None else ours
            elif key == "general.name":
                yield key, value


def load_with_transformers(folder: Path, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The model of `FILE` in a folder, its weights dequantised, and transformers' account of what was missing."""
    with without_bars():
        found: tuple[Any, dict[str, Any]] = from_pretrained(
            folder,
            config,
            gguf_file=FILE,
            trust_remote_code=False,
            output_loading_info=True,
            **_dequantised(),
            **options,
        )
    return found


@contextmanager
def without_bars() -> Iterator[None]:
    """Within the context the reader of GGUF draws no bars, which it does whatever transformers is told."""
    from transformers import modeling_gguf_pytorch_utils as reader

    drawn = getattr(reader, "tqdm", None)
    if drawn is None:
        yield
        return
    reader.tqdm = lambda items, *_, **__: items
    try:
        yield
    finally:
        reader.tqdm = drawn


def _dequantised() -> dict[str, Any]:
    """Options for plain weights: packed ones would be multiplied by code that is downloaded from the Hub."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
