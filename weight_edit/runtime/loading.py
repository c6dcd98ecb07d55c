"""Load a model with its tokenizer and anatomy."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.anatomy.narrow.classes import from_pretrained
from weight_edit.anatomy.parts import Anatomy
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, UsageError, first_line
from weight_edit.hub.source import Source, read_local_config, resolve
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.templates import Scalar, template_of_processor
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.gguf import gguf_config, gguf_of, gguf_tokenizer, gguf_weights
from weight_edit.runtime.needs import check_runnable
from weight_edit.runtime.processes import device_of_process, first_on_machine
from weight_edit.runtime.quiet import quiet_transformers
from weight_edit.utils.progress import bar

if TYPE_CHECKING:
    from weight_edit.runtime.offload.offload import Offload

TOKENIZER_FILES = ("*token*", "*vocab*", "*bpe*", "*.model", "*.tiktoken", "tekken.json")
SMALL = 20_000_000
"""The number of parameters below which one thread is faster than several."""


@dataclass(kw_only=True)
class Model:
    """A causal language model in evaluation mode, with what is needed to use and to edit it.

    Attributes:
        offload: what reads the weights of a model that stays on disk; None where they are in memory.
        hides_padding: whether padding beside a sequence leaves its stream as it is; None as long as it was not found
            out.
    """

    model: PreTrainedModel
    tokenizer: Any
    anatomy: Anatomy
    source: Source
    offload: "Offload | None" = None
    hides_padding: bool | None = field(default=None, init=False)

    @classmethod
    def from_parts(
        cls,
        model: PreTrainedModel,
        tokenizer: Any,
        anatomy: Anatomy | None = None,
        *,
        name: str = "in memory",
    ) -> "Model":
        """Wrap a model that is already in memory.

        Raises:
            UnsupportedError: no anatomy was given and the architecture is not understood.
        """
        path = Path(getattr(model.config, "_name_or_path", "") or ".")
        found = anatomy if anatomy is not None else anatomy_of(model.config)
        return cls(
            model=model.eval(),
            tokenizer=tokenizer,
            anatomy=_as_loaded(found, model),
            source=Source(name, path, None, in_memory=True),
        )

    def __repr__(self) -> str:
        blocks = f"{self.anatomy.n_layers} blocks, d_model {self.anatomy.d_model}"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"Model({self.source.name!r}, {self.anatomy.architecture}, {blocks}, {dtype} on {self.device})"

    @property
    def config(self) -> PretrainedConfig:
        """The model's config."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """The device of the input embedding, where token ids go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the input embedding, which is that of the residual stream."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    def parameter(self, name: str) -> torch.Tensor:
        """A parameter by its name, detached.

        Raises:
            AttributeError: the model has no such parameter.
        """
        if self.offload is not None:
            return self.offload.parameter(name)
        parameter: torch.Tensor = self.model.get_parameter(name)
        return parameter.detach()

    @cached_property
    def small(self) -> bool:
        """Whether the model runs on a processor and is too small to gain from several threads."""
        return self.device.type == "cpu" and sum(p.numel() for p in self.model.parameters()) < SMALL

    @property
    def backbone(self) -> nn.Module:
        """The model without its head: what returns the hidden states that the logits are made of."""
        found: nn.Module = self.model.base_model
        if found is not self.model:
            return found
        # Some models name no part of them so: it is the largest that has the blocks and not the unembedding.
        path, name = self.anatomy.blocks[0].module.split("."), self.anatomy.unembedding
        prefixes = (".".join(path[:count]) for count in range(1, len(path)))
        return self.model.get_submodule(next(each for each in prefixes if not f"{name}.".startswith(f"{each}.")))

    @property
    def vocabulary(self) -> int:
        """The number of logits, which may exceed the number of the tokenizer's tokens."""
        return int(self.model.get_parameter(self.anatomy.unembedding_weight).shape[0])

    @property
    def embeddings(self) -> int:
        """The number of token embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def pad_id(self) -> int:
        """The token id used for padding; it is masked, but must have an embedding."""
        if self.tokenizer is None:
            return 0
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None and 0 <= int(token) < self.embeddings:
                return int(token)
        return 0


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
    offload: bool = False,
    tokenizer: Any = None,
) -> Model:
    """Load `name` for forward passes; a GGUF file is dequantised by transformers.

    Args:
        name, revision, token: as in `resolve`.
        dtype: "auto" (what the checkpoint stores), "float32", "bfloat16" or "float16".
        device: a torch device; None is CUDA where there is one and else the CPU; "auto" spreads the model
            over all devices.
        trust_remote_code: run the code that the model's repository brings along. Never without being asked.
        offload: leave the weights on disk; of a request, all prompts go through a block before the next one is read.
        tokenizer: one that is loaded already; None reads the model's.

    Raises:
        UsageError: the files are missing or broken, or an option is wrong.
        UnsupportedError: the architecture is not understood, or needs its own code; with `offload`, a format whose
            weights cannot stay on disk; a GGUF file that transformers does not load.
    """
    check_dtype(dtype)
    target = usable_device(device)
    # Weights come last: what is wrong with a model is mostly seen before gigabytes are fetched.
    with first_on_machine():
        source = resolve(name, revision=revision, token=token, weights=False, edited=False)
    with bar(f"opening {source.public_name}"), quiet_transformers():
        config = check_source(source, device=target, trust_remote_code=trust_remote_code)
        if tokenizer is None:
            tokenizer = read_tokenizer(source, trust_remote_code=trust_remote_code)
        anatomy = anatomy_of(config, trust_remote_code=trust_remote_code)
    if source.on_hub:
        with first_on_machine():
            source = resolve(name, revision=source.revision, token=token, edited=False)
    files = gguf_of(source)
    if files is not None and offload:
        raise UnsupportedError("a GGUF file needs its weights in memory; leave `offload` out", option="offload")
    with bar(f"loading {source.public_name}"), quiet_transformers():
        blocks = [block.module for block in anatomy.blocks] if offload else None
        model, on_disk = (
            _weights(source, config, dtype, target, trust_remote_code=trust_remote_code, blocks=blocks)
            if files is None
            else (gguf_weights(files, config, dtype=dtype, device=target), None)
        )
    return Model(
        model=model.eval(),
        tokenizer=tokenizer,
        anatomy=_as_loaded(anatomy, model),
        source=source,
        offload=on_disk,
    )


def check_source(source: Source, *, device: str | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """The config of a model that can run here: the packages that it needs are installed.

    Args:
        device: as in `load`.

    Raises:
        UsageError, UnsupportedError: as `read_config` and `check_runnable`.
    """
    # A GGUF file has its own types of numbers, which need no package but gguf.
    stored = {} if gguf_of(source) is not None else read_local_config(source.path)
    config = read_config(source, trust_remote_code=trust_remote_code)
    check_runnable(config, stored, source.path, device=usable_device(device), trust_remote_code=trust_remote_code)
    return config


def _as_loaded(anatomy: Anatomy, model: PreTrainedModel) -> Anatomy:
    """The anatomy with `tied` as it is in the loaded model.

    A checkpoint may hold apart what its config ties.
    """
    head, embedding = (model.get_parameter(name) for name in (anatomy.unembedding_weight, anatomy.embedding_weight))
    # Weights that were left on the disk are no longer the same objects, but transformers keeps account of them.
    tied = head is embedding or anatomy.unembedding_weight in getattr(model, "all_tied_weights_keys", {})
    return replace(anatomy, tied=tied)


def loaded(model: Model | str | Path) -> Model:
    """The given model, or one loaded from its name or folder with the defaults of `load`."""
    return model if isinstance(model, Model) else load(model)


def usable_device(device: str | None) -> str:
    """The device that a name stands for, as in `load`.

    Raises:
        UsageError: there is none of that name, or it holds no weights.
    """
    device = device_of_process(device)
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "auto":
        return device
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UsageError(f"device {device!r} is not known; use cpu, cuda, cuda:1, mps or auto") from error
    if kind == "meta":
        raise UsageError("device 'meta' holds no weights; use cpu, cuda, cuda:1, mps or auto")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {device!r} was asked for, but torch sees no CUDA device; use cpu")
    return device


def read_config(source: Source, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration in a source's folder, or of its GGUF file.

    Raises:
        UsageError: it cannot be read.
        UnsupportedError: transformers does not know the model type or does not load the GGUF architecture, or the model
            needs its own code.
    """
    files = gguf_of(source)
    if files is not None:
        return gguf_config(files)
    try:
        config = AutoConfig.from_pretrained(source.path, trust_remote_code=trust_remote_code)
    except MODEL_ERRORS as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise _needs_code(source) from error
        if "does not recognize this architecture" in text:
            raise UnsupportedError(
                f"{source.path / 'config.json'}: transformers does not know this model_type; a newer transformers may"
            ) from error
        if isinstance(error, ImportError):
            raise _needs_package(source, error) from error
        raise UsageError(f"{source.path / 'config.json'} cannot be read: {first_line(error)}") from error
    dtype = getattr(config, "dtype", None)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise UsageError(f"{source.path / 'config.json'}: dtype is {str(dtype)[:40]!r}, not a floating type's name")
    return config


def read_tokenizer(source: Source, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a source's folder, or of its GGUF file; without a chat template it gets the processor's.

    Raises:
        UsageError: it cannot be read, or the template beside it cannot.
        UnsupportedError: it needs its own code.
    """
    files = gguf_of(source)
    if files is not None:
        return gguf_tokenizer(files)
    with quiet_transformers():
        tokenizer = _tokenizer(source, trust_remote_code)
    if not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = template_of_processor(source.path)
    return tokenizer


def chat_format(
    source: Source,
    *,
    system: str | None = None,
    template: str | None = None,
    template_args: Mapping[str, Scalar] | None = None,
    thinking: str | None = None,
    trust_remote_code: bool = False,
) -> ChatFormat:
    """The chat format of a model that is not loaded yet, so that errors in it are found early.

    Raises:
        UsageError, UnsupportedError: no such config or tokenizer, or as `ChatFormat`.
    """
    with quiet_transformers():
        read_config(source, trust_remote_code=trust_remote_code)
    tokenizer = read_tokenizer(source, trust_remote_code=trust_remote_code)
    return ChatFormat(tokenizer, system=system, template=template, template_args=template_args, thinking=thinking)


def _needs_package(source: Source, error: Exception) -> UnsupportedError:
    return UnsupportedError(f"{source.name} needs a package that is not installed: {first_line(error)}")


def _tokenizer(source: Source, trust_remote_code: bool) -> Any:
    try:
        if not any(any(source.path.glob(pattern)) for pattern in TOKENIZER_FILES):
            # transformers would make an empty one.
            raise OSError("no file of a tokenizer is there")
        return AutoTokenizer.from_pretrained(source.path, trust_remote_code=trust_remote_code)
    except Exception as error:
        # The tokenizers package raises the bare class.
        if type(error) is not Exception and not isinstance(error, MODEL_ERRORS):
            raise
        if "trust_remote_code" in str(error):
            raise _needs_code(source) from error
        if isinstance(error, ImportError):
            raise _needs_package(source, error) from error
        raise UsageError(
            f"{source.path} has no tokenizer that transformers can load ({first_line(error)}); "
            "put tokenizer.json and tokenizer_config.json beside config.json"
        ) from error


def _weights(
    source: Source,
    config: PretrainedConfig,
    dtype: str,
    device: str,
    *,
    trust_remote_code: bool,
    blocks: list[str] | None,
) -> "tuple[PreTrainedModel, Offload | None]":
    """The model with its weights, or, where its blocks are given, with what reads them from disk."""
    options: dict[str, Any] = {
        "dtype": dtype if dtype == "auto" else getattr(torch, dtype),
        "use_safetensors": True,
        "trust_remote_code": trust_remote_code,
    }
    offload = None
    try:
        if blocks is None:
            model, info = from_pretrained(source.path, config, device_map=device, output_loading_info=True, **options)
        else:
            from weight_edit.runtime.offload.loading import lay_out

            model, info, offload = lay_out(source.path, config, device=device, blocks=blocks, **options)
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{source.name} does not fit on device {device}; use device 'auto' or cpu, or dtype bfloat16"
        ) from error
    except (*FOREIGN_ERRORS, SafetensorError) as error:
        raise _explained(error, source) from error
    if info["missing_keys"]:
        # transformers would fill these with random numbers and only warn.
        missing = sorted(info["missing_keys"])
        raise UsageError(
            f"{source.path} lacks {len(missing)} tensors that its config asks for, the first {missing[0]}; "
            "the checkpoint is incomplete or config.json is another model's"
        )
    return model, offload


def _explained(error: Exception, source: Source) -> Exception:
    text = str(error)
    if "trust_remote_code" in text:
        return _needs_code(source)
    if isinstance(error, ImportError):
        return _needs_package(source, error)
    if "Unrecognized configuration class" in text:
        return UnsupportedError(f"{source.path / 'config.json'} is not that of a causal language model")
    if "no file named" in text and any(source.path.glob("pytorch_model*.bin")):
        return UnsupportedError(
            f"{source.path} holds only pytorch_model.bin; convert it to safetensors first "
            "(load it with transformers and call save_pretrained)"
        )
    if "ignore_mismatched_sizes" in text:
        return UsageError(f"{source.path}: tensors in the weights have other shapes than config.json asks for")
    return UsageError(f"the weights in {source.path} cannot be loaded: {first_line(error)}")


def _needs_code(source: Source) -> UnsupportedError:
    return UnsupportedError(
        f"{source.name} brings its own Python code, which is not run unless you pass `trust_remote_code=True`",
        option="trust_remote_code",
    )
