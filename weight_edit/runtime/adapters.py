"""A PEFT LoRA adapter applied to a loaded model."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from weight_edit.checkpoint.files import list_files, printable, read_json, read_whole
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, UsageError, first_line
from weight_edit.hub.calls import hub_call, usable_token
from weight_edit.hub.source import Source
from weight_edit.runtime.quiet import quiet_transformers
from weight_edit.utils.progress import announce, bar, beside

if TYPE_CHECKING:
    from weight_edit.runtime.loading import Model

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MOST_LISTED = 3


def with_adapter(model: "Model", adapter: str | Path, *, token: str | None = None) -> "Model":
    """The model with a LoRA adapter, which is not merged: as `peft.PeftModel` applies it for inference.

    The given model is changed and must not be used any more. An adapter that stores biases of its base's modules
    changes them.

    Args:
        model: the adapter's base, from `load`.
        adapter: a folder, or a Hub id.
        token: Hub access token.

    Raises:
        UsageError: no such adapter, no adapter at all, or one of another base.
        UnsupportedError: one that is no LoRA, or whose weights are pickled, which are never loaded.
    """
    folder = _folder(str(adapter), usable_token(token))
    name = printable(str(adapter))
    config = adapter_settings(folder, name)
    public = Path(folder if Path(adapter).expanduser().is_dir() else str(adapter)).name
    said = config.get("base_model_name_or_path")
    base = model.source.public_name
    if isinstance(said, str) and said and Path(said).name != Path(base).name:
        announce(f"note: the adapter {public} says that it was made for {printable(Path(said).name)}, not for {base}")
    with bar(f"applying {public}"), quiet_transformers(), warnings.catch_warnings():
        # They are about training, merging and what is missing, which is checked here.
        warnings.simplefilter("ignore")
        applied = _applied(model, folder, name, said)
    # No files are those of the two together.
    source = Source(f"{public} on {base}", model.source.path, None, in_memory=True)
    return replace(model, model=applied, source=source)


def check_adapter(adapter: str | Path, *, token: str | None = None) -> None:
    """Refuse what is no adapter that `with_adapter` could apply to any model; one on the Hub is fetched.

    Raises:
        UsageError, UnsupportedError: as `with_adapter`.
    """
    adapter_settings(_folder(str(adapter), usable_token(token)), printable(str(adapter)))


def adapter_settings(folder: Path, name: str) -> Mapping[str, Any]:
    """The content of a LoRA adapter's `adapter_config.json`, once its files are known to be such.

    Args:
        name: the adapter's, for messages.

    Raises:
        UsageError, UnsupportedError: as `with_adapter`.
    """
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{name} is no PEFT adapter: it has no {CONFIG}; give the folder that holds it")
    config = read_json(read_whole(folder / CONFIG), f"{CONFIG} of {name}", unique_keys=False, constants=True)
    if not isinstance(config, dict):
        raise UsageError(f"{CONFIG} of {name} must be a JSON object")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(f"{name} is an adapter of the type {printable(str(kind))}; only LORA is applied here")
    if config.get("megatron_config"):
        # PEFT would import the module that `megatron_core` names.
        raise UnsupportedError(
            f"{name} is an adapter for Megatron (`megatron_config` in {CONFIG}), which is not run here"
        )
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(file for file in list_files(folder)[0] if file.endswith(_PICKLED))
        if pickled:
            raise UnsupportedError(
                f"{name} has only pickled weights ({printable(pickled[0])}), which are never loaded; where you trust "
                f"them, load them with peft once and save them again, which gives {WEIGHTS}"
            )
        raise UsageError(f"{name} has no {WEIGHTS}; fetch the adapter's weights")
    return config


def _folder(adapter: str, token: str | None) -> Path:
    path = Path(adapter).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"{printable(adapter)} is a file; give the folder of the adapter, which holds {CONFIG}")
    if path.is_absolute() or adapter.startswith((".", "~")) or adapter.count("/") != 1:
        raise UsageError(f"there is no folder {printable(adapter)}; give an adapter's folder, or a Hub id")
    with beside(f"fetching {adapter}"), hub_call(adapter, None):
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(adapter, token=token, allow_patterns=[CONFIG, WEIGHTS]))


def _applied(model: "Model", folder: Path, name: str, said: object) -> Any:
    from peft import PeftModel

    base = model.source.public_name
    made_for = f" (it was made for {printable(said)})" if isinstance(said, str) and said else ""
    try:
        adapted = PeftModel.from_pretrained(model.model, str(folder), is_trainable=False)
        # Once more, for what it says: what does not fit is left out without an error.
        found = adapted.load_adapter(str(folder), "default", is_trainable=False)
    except SafetensorError as error:
        raise UsageError(f"{WEIGHTS} of {name} cannot be read: {first_line(error)}; fetch it again") from None
    except FOREIGN_ERRORS as error:
        text = str(error)
        if "size mismatch" in text or "not found in the base model" in text or isinstance(error, KeyError):
            shape = next((line.strip() for line in text.splitlines() if "size mismatch" in line), first_line(error))
            raise UsageError(f"{name} does not fit {base}{made_for}: {printable(shape, 300)}") from None
        raise UsageError(f"{name} cannot be applied to {base}: {first_line(error)}") from None
    wrong = [*found.unexpected_keys, *found.missing_keys]
    if wrong:
        which = "has no place for" if found.unexpected_keys else "needs"
        listed = ", ".join(printable(key) for key in wrong[:_MOST_LISTED])
        raise UsageError(
            f"{name} does not fit {base}{made_for}: the model {which} {len(wrong)} tensors, such as {listed}"
        )
    adapted.eval()
    # The model itself, in which PEFT has put its layers: names of parameters and its config are as they were.
    return adapted.get_base_model()
