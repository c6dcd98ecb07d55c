"""transformers' reader of GGUF files, and small files for it: what it makes of tensors is tried, never assumed."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from weight_edit.anatomy.disk.conversion import parameters_of
from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.anatomy.narrow.classes import from_pretrained
from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.gguf.header import GgufHeader
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.errors import UnsupportedError, first_line
from weight_edit.utils.extras import need

FILE = "model.gguf"
"""The name of a GGUF file that is given to transformers in a folder of its own."""

_VOCABULARY = "tokenizer.ggml.tokens"
_TEMPLATES = "tokenizer.chat_template"

Values = NDArray[np.float32]


@dataclass(frozen=True)
class GgufReader:
    """transformers' reader for the files of one model.

    Attributes:
        header: of the model's first file.
    """

    header: GgufHeader

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return self.header.architecture

    def config(self, names: Iterable[str]) -> Any:
        """The config that transformers makes of the metadata; it reads the names of tensors, too.

        A small file stands for the real one: its vocabulary, which takes transformers seconds, tells no more than its
        size, and a model in parts has the names in all of them.

        Args:
            names: of all tensors of the model.

        Raises:
            UnsupportedError: transformers does not read this architecture, or lacks an entry of the metadata.
        """
        from transformers import AutoConfig
        from transformers.integrations.gguf import GGUF_CONFIG_ARCHS, get_gguf_config

        try:
            if self.architecture in GGUF_CONFIG_ARCHS:
                known = {**self.header.lengths, **self.header.values}
                return AutoConfig.for_model(**get_gguf_config(known, tuple(names)))
            with TemporaryDirectory(prefix="weight-edit-") as place:
                nothing = np.zeros(1, np.float32)
                self._write(Path(place) / FILE, self._plain_entries(), dict.fromkeys(names, nothing))
                with names_once():
                    return AutoConfig.from_pretrained(place, gguf_file=FILE)
        except MODEL_ERRORS as error:
            if "not supported" in str(error):
                raise UnsupportedError(
                    f"transformers does not load GGUF files of the architecture '{printable(self.architecture, 40)}'; "
                    "install llama.cpp's llama-server for them, and edit the model's safetensors folder"
                ) from None
            lacks = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
            raise UnsupportedError(
                f"transformers makes no config of this GGUF file of the architecture "
                f"'{printable(self.architecture, 40)}': {lacks}"
            ) from error

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
            with names_once():
                known = get_gguf_hf_weights_map(model, processor)
        except NotImplementedError as error:
            raise UnsupportedError(
                f"the package gguf has no names for the architecture '{self.architecture}' ({first_line(error)}); a "
                "newer one may"
            ) from error
        # Stacks of experts and of their biases are parameters without an ending, and tensors with one.
        state = model.state_dict()
        known |= {f"{tensor}.weight": parameter for tensor, parameter in known.items()}
        known |= {
            f"{tensor.removesuffix('.weight')}.bias": f"{parameter}_bias"
            for tensor, parameter in known.items()
            if f"{parameter}_bias" in state
        }
        pairs = ((name, known.get(name)) for name in names)
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
            self._write(folder / FILE, self._entries(config), tensors)
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

    def join(self, path: Path, parts: Checkpoint) -> None:
        """Write a file with all tensors of a model in parts, and what transformers reads of their metadata.

        Args:
            path: of the file.
            parts: the model, opened.
        """
        import gguf

        def stored(info: TensorInfo) -> NDArray[np.uint8]:
            raw = np.memmap(parts.path / info.shard, np.uint8, "r", info.begin, info.size)
            return raw.reshape(*info.shape[:-1], -1)

        tensors = {info.name: (stored(info), gguf.GGMLQuantizationType[info.dtype]) for info in parts.tensors.values()}
        self._write(path, self._plain_entries(), tensors)

    def _write(self, path: Path, entries: Iterable[tuple[str, Any]], tensors: Mapping[str, Any]) -> None:
        """Write a GGUF file; tensors are float32 arrays, or raw bytes by rows with their type."""
        need("gguf", "reading a GGUF file through transformers")
        import gguf

        writer = gguf.GGUFWriter(path, self.architecture)
        try:
            for key, value in entries:
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
                raw, kind = values if isinstance(values, tuple) else (values, None)
                writer.add_tensor(name, raw, raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    def _entries(self, config: Any) -> Iterator[tuple[str, Any]]:
        """The metadata with the sizes of another config, under the keys by which transformers reads them."""
        settings = next(self._settings(str(getattr(config, "model_type", ""))), {})
        own = f"{self.architecture}."
        for key, value in self.header.values.items():
            if key.startswith(own):
                setting = settings.get(key.removeprefix(own))
                ours = getattr(config, setting, None) if isinstance(setting, str) else None
                yield key, value if ours is None else ours
            elif key == "general.name":
                yield key, value

    def _plain_entries(self) -> Iterator[tuple[str, Any]]:
        """The metadata without its lists of texts, and with the vocabulary's size in their place."""
        size, tokens = f"{self.architecture}.vocab_size", self.header.lengths.get(_VOCABULARY)
        if tokens is not None:
            mapped = any(settings.get("vocab_size") for settings in self._settings(""))
            if not mapped:
                yield _VOCABULARY, [""] * tokens
            elif size not in self.header.values:
                yield size, tokens
        for key, value in self.header.values.items():
            if key != "general.architecture" and not key.startswith(_TEMPLATES):
                yield key, value

    def _settings(self, model_type: str) -> Iterator[Mapping[str, Any]]:
        """transformers' names for the entries of an architecture, by all that it may call it."""
        from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

        alike = {name.replace("_", "").replace("-", ""): name for name in GGUF_CONFIG_MAPPING}
        for kind in (self.architecture, model_type, model_type.removesuffix("_text")):
            name = alike.get(kind.replace("_", "").replace("-", ""))
            if name is not None:
                yield GGUF_CONFIG_MAPPING[name]


def load_with_transformers(folder: Path, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The model of `FILE` in a folder, its weights dequantised, and transformers' account of what was missing."""
    # Of numbers that are none of a model, logarithms of negative ones are tried, too.
    with without_bars(), names_once(), through_arrays(), np.errstate(invalid="ignore"):
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


@contextmanager
def names_once() -> Iterator[None]:
    """Within the context the package gguf makes its tables of names once, and not for every module of a model."""
    import gguf

    made = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = cache(made)
    try:
        yield
    finally:
        gguf.get_tensor_name_map = made


@contextmanager
def through_arrays() -> Iterator[None]:
    """Within the context the package gguf reads files through plain arrays.

    Each of a tokenizer's hundred thousand texts is several slices, and one of a mapped file costs three times what one
    of an array does: most of the time in which a small model is loaded.
    """
    import gguf

    module: Any = gguf
    kind = module.GGUFReader

    class Plain(kind):  # type: ignore[misc, valid-type]
        """A reader whose bytes, still those of the mapped file, are an array like any other."""

        @property
        def data(self) -> NDArray[np.uint8]:
            return self._plain

        @data.setter
        def data(self, mapped: NDArray[np.uint8]) -> None:
            self._plain = mapped.view(np.ndarray)

    module.GGUFReader = Plain
    try:
        yield
    finally:
        module.GGUFReader = kind


def _dequantised() -> dict[str, Any]:
    """Options for plain weights: packed ones would be multiplied by code that is downloaded from the Hub."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
