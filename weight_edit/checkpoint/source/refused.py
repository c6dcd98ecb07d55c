"""Refused weight formats, as data, each with an alternative to use."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, NoReturn

from weight_edit.checkpoint.files import meant, printable
from weight_edit.checkpoint.gguf.header import is_gguf
from weight_edit.checkpoint.quantized.compressed import PACKED
from weight_edit.checkpoint.quantized.fp8 import FP8
from weight_edit.checkpoint.quantized.methods import AGAIN, EDITED, CheckTensors
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.errors import UnsupportedError, UsageError, WeightEditError

_ON_LOAD = "give the checkpoint that it was quantised from; the edited one can be quantised again while it is loaded"
_MASTER = "give the master weights in bfloat16, which their makers publish beside it"


@dataclass(frozen=True)
class _Method:
    name: str
    instead: str


METHODS: Mapping[str, _Method] = {
    "aqlm": _Method("AQLM", AGAIN),
    "auto-round": _Method("AutoRound", AGAIN),
    "bitnet": _Method("BitNet", _MASTER),
    "eetq": _Method("EETQ", _ON_LOAD),
    "exl2": _Method("EXL2", AGAIN),
    "exl3": _Method("EXL3", AGAIN),
    "fbgemm_fp8": _Method("FBGEMM's FP8", AGAIN),
    "fouroversix": _Method("Four Over Six", AGAIN),
    "fp_quant": _Method("FP-Quant", AGAIN),
    "gemma": _Method("Gemma's quantisation", _MASTER),
    "gguf": _Method("GGUF", "give the GGUF file itself"),
    "higgs": _Method("HIGGS", _ON_LOAD),
    "hqq": _Method("HQQ", _ON_LOAD),
    "metal": _Method("Metal's quantisation", AGAIN),
    "mxfp8": _Method("MXFP8", AGAIN),
    "nvfp4": _Method("NVFP4", AGAIN),
    "quanto": _Method("quanto", _ON_LOAD),
    "quark": _Method("Quark", AGAIN),
    "sinq": _Method("SINQ", _ON_LOAD),
    "spqr": _Method("SpQR", AGAIN),
    "torchao": _Method("torchao", _ON_LOAD),
    "vptq": _Method("VPTQ", AGAIN),
}
"""`quant_method` of a config -> its name and the alternative."""

_TRACES: Mapping[str, str] = {
    ".absmax": "bitsandbytes_4bit",
    ".quant_map": "bitsandbytes_4bit",
    ".quant_state.bitsandbytes__nf4": "bitsandbytes_4bit",
    ".quant_state.bitsandbytes__fp4": "bitsandbytes_4bit",
    ".SCB": "bitsandbytes_8bit",
    ".weight_scale_2": "modelopt",
    ".weight_global_scale": "compressed-tensors",
    ".g_idx": "gptq",
    ".qzeros": "awq",
    PACKED: "compressed-tensors",
    ".W_q": "hqq",
    ".weight._data": "quanto",
    "_weight_qdata": "torchao",
}
"""Suffix of a tensor's name -> the method that writes it, where the config names none."""

_TEXT_KEYS = ("text_config", "thinker_config", "language_config", "llm_config")

_PICKLED = (
    "only pickled weights ({found}), which are never loaded; convert them once, where you trust them: python -c"
    " 'import sys; from transformers import AutoModelForCausalLM as M;"
    " M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])' OLD_FOLDER NEW_FOLDER, and copy the tokenizer's"
    " files"
)
_EXPORTED = "only weights for {kind} ({found}); give the model in safetensors, from which they were exported"
_CONVERTED = (
    "only weights of {kind} ({found}); convert them once with transformers of version 4 and save_pretrained, or give"
    " the model in safetensors"
)
_GGML = "only weights in GGML ({found}), which came before GGUF and is not read; give the model's GGUF file"

_FORMATS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("pickles", (".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".pkl"), _PICKLED),
    ("GGML", (".ggml",), _GGML),
    ("ONNX", (".onnx", ".onnx_data"), _EXPORTED),
    ("Core ML", (".mlmodel", ".mlpackage"), _EXPORTED),
    ("TensorFlow Lite", (".tflite",), _EXPORTED),
    ("TensorFlow", (".h5",), _CONVERTED),
    ("Flax", (".msgpack",), _CONVERTED),
)
"""(format, file name suffixes, remedy), in order of precedence."""

_MOST_SHOWN = 8
_PART_NUMBER = re.compile(r"-\d{5}-of-(?=\d{5}\.gguf$)")

_ADAPTER = (
    "an adapter (adapter_config.json) and not the model itself; give its base model, or merge the two first: load"
    " it with peft's AutoPeftModelForCausalLM, then merge_and_unload() and save_pretrained"
)


def without_weights(files: Collection[str], where: str) -> WeightEditError:
    """The error for a model that has no weights in a supported format, naming what it has.

    Args:
        files: all files of the folder or repository, relative.
        where: the folder or repository.
    """
    place = printable(where)
    if "adapter_config.json" in files:
        return UnsupportedError(f"{place} is {_ADAPTER}")
    others = sorted(name for name in files if name.endswith(".safetensors"))
    if others:
        return UsageError(
            f"{place} has neither model.safetensors nor model.safetensors.index.json, only {_list(others)}, which"
            " transformers does not load by default; name the right file in config.json as transformers_weights"
        )
    gguf = sorted(name for name in files if is_gguf(name))
    if gguf:
        return _only_gguf(gguf, where)
    for kind, endings, text in _FORMATS:
        found = sorted(name for name in files if name.endswith(endings))
        if found:
            return UnsupportedError(f"{place} has {text.format(kind=kind, found=_list(found))}")
    return UsageError(
        f"{place} has neither model.safetensors nor model.safetensors.index.json; fetch the model's weights"
    )


def _only_gguf(names: list[str], where: str) -> UsageError:
    """The error for a folder or repository that is no model folder but has GGUF files."""
    shown = ", ".join(printable(name, 80) for name in names[:_MOST_SHOWN])
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    text = f"{printable(where)} has its weights in GGUF alone ({shown}{more})"
    if PurePosixPath(where).is_absolute():
        return UsageError(f"{text}; give the file itself, such as {printable(f'{where}/{names[0]}')}")
    # Of a model in parts all are needed, and `hf` takes a pattern for them.
    wanted = _PART_NUMBER.sub("-*-of-", names[0])
    asked = quote(names[0]) if wanted == names[0] else f"--include {quote(wanted)}"
    return UsageError(f"{text}; download one (hf download {quote(where)} {asked}) and give its path")


def without_config(files: Collection[str], where: str) -> WeightEditError:
    """The error for a folder or repository without `config.json`; see `without_weights`."""
    known = without_weights(files, where)
    if isinstance(known, UnsupportedError) or any(is_gguf(name) for name in files):
        return known
    # A run has its edited model in a folder.
    inside = [name for name in sorted(files) if name.count("/") == 1 and name.endswith("/config.json")]
    instead = meant(Path(where, inside[0]).parent) if len(inside) == 1 and PurePosixPath(where).is_absolute() else ""
    asked = instead or "; give a whole model in the Hugging Face layout"
    return UsageError(f"{printable(where)} has no config.json{asked}")


def single_file(name: str) -> WeightEditError:
    """The error for a file given in place of a model folder."""
    if name.endswith(".ggml"):
        return UnsupportedError(f"{printable(name)} is a GGML file, the form before GGUF; give the model's GGUF file")
    return UsageError(
        f"{printable(name)} is a file; give the folder that holds config.json and the weights, or a GGUF file"
    )


def check_format(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse quantised formats that cannot be edited, and configs at odds with the tensors.

    What passes: plain weights, and the methods of `methods.EDITED` within what their functions there allow.

    Args:
        config: `config.json`, parsed.
        tensors: all tensors of the checkpoint, by name.

    Raises:
        UnsupportedError: a format that is not edited; says what to give instead.
        UsageError: a format's tensors or scales that are missing or of the wrong shape; names the tensor.
    """
    stored = quantization_of(config)
    if stored is None:
        _check_plain(tensors)
    else:
        _declared(stored)(tensors)


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse by the config alone what `check_format` refuses, before weights are fetched."""
    stored = quantization_of(config)
    if stored is not None:
        _declared(stored)


def _declared(stored: Mapping[str, Any]) -> CheckTensors:
    """The check of the tensors that a declared quantisation calls for."""
    method = _method(stored)
    if isinstance(method, str) and method in EDITED:
        return EDITED[method](stored)
    _refuse(method, "config.json")


def _method(stored: Mapping[str, Any]) -> object:
    method = stored.get("quant_method")
    if method is None and (stored.get("load_in_4bit") or stored.get("load_in_8bit")):
        return "bitsandbytes"
    return method


def instead_of(stored: Mapping[str, Any]) -> tuple[str, str]:
    """The name of a declared quantisation, and the kind of checkpoint to use instead."""
    method = _method(stored)
    known = METHODS.get(method) if isinstance(method, str) else None
    return printable(str(method), 60), AGAIN if known is None else known.instead


def quantization_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The quantisation declared for the model or its text part; None if there is none.

    Raises:
        UsageError: it is no object.
    """
    for part in _text_parts(config):
        for key in ("quantization_config", "compression_config"):
            if part.get(key):
                if not isinstance(part[key], Mapping):
                    raise UsageError(f"config.json: {key} must be an object; fetch the file again")
                found: Mapping[str, Any] = part[key]
                return found
    return None


def _text_parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The config and its nested configs of text models."""
    yield config
    for key in _TEXT_KEYS:
        if isinstance(config.get(key), Mapping):
            yield from _text_parts(config[key])


def _refuse(method: object, where: str) -> NoReturn:
    known = METHODS.get(method) if isinstance(method, str) else None
    if known is None:
        said = "an unnamed method" if method is None else f"an unknown method, {printable(repr(method), 60)}"
        raise UnsupportedError(f"{where}: the weights are quantised ({said}), so they cannot be edited; {AGAIN}")
    raise UnsupportedError(
        f"{where}: the weights are quantised ({method}): {known.name} cannot be edited in place; {known.instead}"
    )


def _check_plain(tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse tensors of a quantisation that the config does not declare."""
    for name, info in tensors.items():
        for ending, method in _TRACES.items():
            if name.endswith(ending):
                if method in EDITED:
                    raise UsageError(
                        f"tensor {printable(name)!r} is of a quantised weight ({method}), but config.json has no "
                        "quantization_config that says how; fetch the model's own config.json"
                    )
                _refuse(method, f"tensor {printable(name)!r}")
        scaled = name.removesuffix("_blocks") + "_scales"
        if info.dtype in (FP8, "F8_E5M2") or (name.endswith("_blocks") and scaled in tensors):
            raise UsageError(
                f"tensor {printable(name)!r} is quantised ({info.dtype}), but config.json has no "
                "quantization_config that"
                " says how; fetch the model's own config.json"
            )


def _list(names: list[str]) -> str:
    shortest = sorted(names, key=lambda name: (len(PurePosixPath(name).parts), name))
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(printable(name, 80) for name in shortest[:2]) + more
