"""A GGUF file loaded by transformers, with its weights dequantised: what its numbers say, in another program."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.anatomy.narrow.classes import from_pretrained
from weight_edit.checkpoint.gguf.header import GgufHeader, read_gguf_header
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, UsageError, first_line
from weight_edit.hub.source import Source
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.loading import Model, usable_device
from weight_edit.runtime.quiet import quiet_transformers
from weight_edit.utils.extras import need
from weight_edit.utils.progress import bar

_FILE = "model.gguf"


def load_gguf(path: str | Path, *, dtype: str = "auto", device: str | None = None) -> Model:
    """The model of a GGUF file for forward passes; its weights take as much memory as those of an unquantised model.

    Args:
        path: the file.
        dtype, device: as in `load`; "auto" is what the file's unquantised tensors have.

    Raises:
        UsageError: the file cannot be read, the package gguf is missing, or an option is wrong.
        UnsupportedError: transformers does not load its architecture, or it is divided into several files.
    """
    check_dtype(dtype)
    target = usable_device(device)
    file = Path(path).expanduser()
    with _alone(file) as folder, bar(f"loading {file.name}"), quiet_transformers(), _without_bars():
        try:
            config = AutoConfig.from_pretrained(folder, gguf_file=_FILE)
            tokenizer = _tokenizer(folder, file)
            anatomy = anatomy_of(config)
            model = from_pretrained(
                folder,
                config,
                gguf_file=_FILE,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                device_map=target,
                trust_remote_code=False,
                **_dequantised(),
            )
        except UnsupportedError:
            raise
        except (*MODEL_ERRORS, *FOREIGN_ERRORS, SafetensorError) as error:
            raise _explained(error, file) from None
    return Model(
        model=model.eval(),
        tokenizer=tokenizer,
        anatomy=anatomy,
        source=Source(str(file), file.parent, None, in_memory=True),
    )


def gguf_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a GGUF file, with its chat template.

    Raises:
        UsageError, UnsupportedError: as `load_gguf`.
    """
    file = Path(path).expanduser()
    with _alone(file) as folder, quiet_transformers():
        return _tokenizer(folder, file)


def _tokenizer(folder: Path, file: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_FILE)
    except MODEL_ERRORS as error:
        raise _explained(error, file) from None
    # Messages name the model by it.
    tokenizer.name_or_path = file.name
    return tokenizer


@contextmanager
def _alone(file: Path) -> Iterator[Path]:
    """A folder with nothing but the file: transformers would read a tokenizer's settings that lie beside it."""
    header = read_gguf_header(file)
    if header.parts > 1:
        raise UnsupportedError(
            f"{file.name} is one of {header.parts} parts, which transformers does not load; join them (llama.cpp's "
            "llama-gguf-split does), or install its llama-server"
        )
    need("gguf", "loading a GGUF file through transformers")
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / _FILE
        link.symlink_to(file.resolve())
        yield Path(folder)


@contextmanager
def _without_bars() -> Iterator[None]:
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


def _explained(error: Exception, file: Path) -> Exception:
    text = first_line(error)
    if isinstance(error, UsageError | UnsupportedError):
        return error
    if "not supported" in text or isinstance(error, NotImplementedError):
        return _unknown(read_gguf_header(file))
    return UsageError(f"{file.name} cannot be loaded by transformers: {text}")


def _unknown(header: GgufHeader) -> UnsupportedError:
    return UnsupportedError(
        f"transformers does not load GGUF files of the architecture '{header.architecture}'; install llama.cpp's "
        "llama-server for them"
    )
