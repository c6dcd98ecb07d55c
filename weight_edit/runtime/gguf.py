"""A GGUF model read by transformers, with its weights dequantised: what its numbers say, in another program."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer

from weight_edit.anatomy.disk.gguf_reader import FILE, GgufReader, load_with_transformers, through_arrays
from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.gguf.parts import GgufFiles, gguf_files
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, UsageError, first_line
from weight_edit.hub.source import Source
from weight_edit.runtime.quiet import quiet_transformers
from weight_edit.utils.extras import need

_NEEDS = "loading a GGUF file through transformers"


def gguf_of(source: Source) -> GgufFiles | None:
    """The files of a GGUF model; None for a model folder."""
    return gguf_files(source.path)


def gguf_config(files: GgufFiles) -> Any:
    """The config of a GGUF model, as transformers makes it of the metadata.

    Raises:
        UsageError: the file cannot be read, or the package gguf is missing.
        UnsupportedError: transformers does not load its architecture.
    """
    need("gguf", _NEEDS)
    opened = Checkpoint.open(files.first)
    assert opened.gguf is not None
    with quiet_transformers():
        return GgufReader(opened.gguf).config(opened.tensors)


def gguf_tokenizer(files: GgufFiles) -> Any:
    """The tokenizer of a GGUF model, with its chat template.

    Raises:
        UsageError: transformers makes none of what the file says, or the package gguf is missing.
    """
    need("gguf", _NEEDS)
    with _alone(files.first) as folder, quiet_transformers(), through_arrays():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
        except MODEL_ERRORS as error:
            raise _explained(error, files) from None
    # Messages name the model by it.
    tokenizer.name_or_path = files.first.name
    return tokenizer


def gguf_weights(files: GgufFiles, config: Any, *, dtype: str, device: str) -> Any:
    """The model of a GGUF file; its weights take as much memory as those of an unquantised model.

    Args:
        config: of `gguf_config`.
        dtype: as in `load`; "auto" is what the file's unquantised tensors have.
        device: a torch device, or "auto".

    Raises:
        UsageError: it does not fit, or parts cannot be joined on this disk.
        UnsupportedError: transformers does not find all of its parameters in the file.
    """
    with _alone(files.first) if len(files.parts) == 1 else _joined(files) as folder:
        try:
            model, info = load_with_transformers(
                folder, config, dtype=dtype if dtype == "auto" else getattr(torch, dtype), device_map=device
            )
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"{files.first.name} does not fit on device {device}; use device 'auto' or cpu, or dtype bfloat16"
            ) from error
        except (*MODEL_ERRORS, *FOREIGN_ERRORS, SafetensorError) as error:
            raise _explained(error, files) from None
    if info["missing_keys"]:
        # transformers would fill these with random numbers and only warn.
        missing = sorted(info["missing_keys"])
        raise UnsupportedError(
            f"{files.first.name}: transformers finds no tensor for {len(missing)} parameters of the model, the first "
            f"'{missing[0]}'; install llama.cpp's llama-server for it"
        )
    return model


@contextmanager
def _alone(file: Path) -> Iterator[Path]:
    """A folder with nothing but the file: transformers would read a tokenizer's settings that lie beside it."""
    with tempfile.TemporaryDirectory(prefix="weight-edit-") as folder:
        (Path(folder) / FILE).symlink_to(file.resolve())
        yield Path(folder)


@contextmanager
def _joined(files: GgufFiles) -> Iterator[Path]:
    """A folder with the parts of a model in one file, which transformers asks for; it is deleted afterwards.

    Raises:
        UsageError: there is no room for it.
    """
    opened = Checkpoint.open(files.first)
    assert opened.gguf is not None
    with tempfile.TemporaryDirectory(prefix="weight-edit-") as folder:
        needed, free = sum(info.size for info in opened.tensors.values()), shutil.disk_usage(folder).free
        if needed > free:
            raise UsageError(
                f"{files.first.name}: transformers needs the {len(files.parts)} parts in one file of "
                f"{needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB; point TMPDIR to a disk with room"
            )
        GgufReader(opened.gguf).join(Path(folder) / FILE, opened)
        yield Path(folder)


def _explained(error: Exception, files: GgufFiles) -> Exception:
    if isinstance(error, UsageError | UnsupportedError):
        return error
    return UsageError(f"{printable(files.first.name)} cannot be loaded by transformers: {first_line(error)}")
