"""What computes the answers of a named model: transformers, or a server of our own for files that are served."""

from pathlib import Path
from typing import TYPE_CHECKING

from weight_edit.checkpoint.gguf.header import is_gguf, read_gguf_header
from weight_edit.checkpoint.gguf.parts import gguf_files
from weight_edit.errors import UsageError
from weight_edit.evaluation.gguf.program import PROGRAM, VARIABLE, find_program
from weight_edit.evaluation.gguf.served import ServedGguf
from weight_edit.utils.extras import is_installed, need
from weight_edit.utils.names import check_known

if TYPE_CHECKING:
    from weight_edit.runtime.options import FormatOptions

AUTO, TRANSFORMERS, LLAMA_CPP, VLLM = "auto", "transformers", "llama.cpp", "vllm"
BACKENDS = (AUTO, TRANSFORMERS, LLAMA_CPP, VLLM)
"""What computes answers. "auto" is llama.cpp's server for GGUF files, where there is one, and else transformers."""

DEQUANTISED = (
    "{name} was dequantised and run by transformers, whose numbers are close to llama.cpp's, not the same: what runs "
    f"GGUF files elsewhere is llama.cpp ({PROGRAM} on PATH, or ${VARIABLE})"
)
"""The note for a GGUF file that no `llama-server` runs."""


def opened(
    name: str, backend: str, format_options: "FormatOptions", *, slots: int = 8, adapter: str | None = None
) -> str | ServedGguf:
    """A named model as `evaluate` takes it: a GGUF file behind a server that is to be closed, else the name.

    Args:
        name: as in `load`, or the path of a GGUF file.
        backend: one of `BACKENDS`.
        slots: answers at the same time on a server.
        adapter: what is to be applied to the model.

    Raises:
        UsageError: an unknown backend, or one that does not run the model; neither `llama-server` nor the package gguf
            is there; or as `ServedGguf`.
    """
    check_known("backend", backend, BACKENDS)
    if backend == VLLM:
        check_vllm(name, adapter)
        return name
    file = gguf_file(name)
    if file is None:
        if backend == LLAMA_CPP:
            raise UsageError(f"`backend=llama.cpp` runs GGUF files, and {name} is none; leave it out", option="backend")
        return name
    if adapter is not None:
        raise UsageError(
            f"{name} is a GGUF file, to which no PEFT adapter can be applied; give the model in safetensors, or "
            "leave `adapter` out",
            option="adapter",
        )
    read_gguf_header(file)
    program = None if backend == TRANSFORMERS else find_program()
    if program is None:
        _check_transformers(file.name, backend)
        return name
    if format_options.thinking is not None:
        raise UsageError(
            "`thinking`: llama.cpp's server reads the file's template; give its variable, as in "
            "`template_args: enable_thinking=false`",
            option=("thinking", "template_args"),
        )
    return ServedGguf(
        file,
        program,
        system=format_options.system,
        template=format_options.template,
        template_args=format_options.template_args,
        slots=slots,
    )


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a name stands for, of parts the first: its own, or the only model's in a folder; else None.

    Raises:
        UsageError: a folder with several models, or one with parts missing.
    """
    path = Path(name).expanduser()
    files = gguf_files(path) if path.exists() else None
    if is_gguf(name) and (files is None or len(files.parts) == 1):
        return path
    return None if files is None else files.first


def check_vllm(name: str, adapter: str | None = None) -> None:
    """Check that vLLM can be asked to run a model.

    Raises:
        UsageError: it is not installed, the model is a GGUF file, or an adapter is to be applied.
    """
    need("vllm", "`backend=vllm`", "backend")
    if gguf_file(name) is not None:
        raise UsageError(
            f"`backend=vllm` runs models in safetensors, and {name} is a GGUF file; leave it out", option="backend"
        )
    if adapter is not None:
        raise UsageError(
            "`adapter` is applied by transformers; leave `backend=vllm` out, or bake the edit",
            option=("adapter", "backend"),
        )


def remarks_on(name: str) -> tuple[str, ...]:
    """What is to be noted of a named model that transformers runs."""
    return (DEQUANTISED.format(name=Path(name).name),) if gguf_file(name) is not None else ()


def _check_transformers(name: str, backend: str) -> None:
    if backend == LLAMA_CPP:
        raise UsageError(
            f"`backend=llama.cpp`: there is no {PROGRAM} on PATH; install llama.cpp, or give the program's path in the "
            f"environment variable {VARIABLE}",
            option="backend",
        )
    if not is_installed("gguf"):
        raise UsageError(
            f"nothing here can run {name}: install llama.cpp, whose {PROGRAM} is looked for on PATH and in the "
            f"environment variable {VARIABLE}, or the Python package gguf, with which transformers dequantises files "
            "(pip install gguf)"
        )
