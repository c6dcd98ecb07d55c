"""The options of a verb for loading a model and for its chat format, free of torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weight_edit.errors import UnsupportedError
from weight_edit.hub.source import Source, check_named, resolve
from weight_edit.runtime.processes import first_on_machine

if TYPE_CHECKING:
    from weight_edit.prompts.chat import ChatFormat
    from weight_edit.prompts.templates import Scalar
    from weight_edit.runtime.loading import Model


@dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """Options of a chat format, see `ChatFormat`.

    Attributes:
        system: a system prompt put before every instruction.
        template: the name of a chat template, or "plain".
        template_args: variables of the template.
        thinking: "on" or "off"; None leaves it to the template.
    """

    system: str | None = None
    template: str | None = None
    template_args: "Mapping[str, Scalar]" = field(default_factory=dict)
    thinking: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Options of `load`.

    Attributes:
        dtype: "auto" (what the checkpoint stores), "float32", "bfloat16" or "float16".
        device: a torch device; None is CUDA where there is one and else the CPU; "auto" spreads the model over all.
        revision: branch, tag or commit of a Hub model.
        token: Hub access token.
        trust_remote_code: run the code that the model's repository brings along.
        adapter: a PEFT LoRA adapter that is applied to the model, a folder or a Hub id.
        offload: leave the weights on disk.
    """

    dtype: str = "auto"
    device: str | None = None
    revision: str | None = None
    # Whoever prints the options prints no secret.
    token: str | None = field(default=None, repr=False)
    trust_remote_code: bool = False
    adapter: str | None = None
    offload: bool = False

    def of_base(self) -> "LoadOptions":
        """The options for an edited model's base: `revision` is the edited model's, so dropped, as is the adapter.

        An adapter is put on the base, so that the revision is the base's there.
        """
        return replace(self, revision=None if self.adapter is None else self.revision, adapter=None)

    def check_name(self, name: str | Path) -> None:
        """Refuse a name of no model, see `check_named`."""
        check_named(name, revision=self.revision, token=self.token)

    def load(self, name: str | Path) -> "Model":
        """The model, loaded with these options; a GGUF file is dequantised by transformers.

        Raises:
            UsageError, UnsupportedError: as `load` and `with_adapter`; weights of a GGUF file or under an
                adapter cannot stay on disk.
        """
        if self.offload and self.adapter is not None:
            raise UnsupportedError(
                "a model with an adapter needs its weights in memory; leave `offload` out", option="offload"
            )
        from weight_edit.runtime.loading import load

        found = load(
            name,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            token=self.token,
            trust_remote_code=self.trust_remote_code,
            offload=self.offload,
        )
        if self.adapter is None:
            return found
        from weight_edit.runtime.adapters import with_adapter

        return with_adapter(found, self.adapter, token=self.token)

    def source(self, name: str | Path, *, weights: bool = True) -> Source:
        """The model's files, see `resolve`."""
        with first_on_machine():
            return resolve(name, revision=self.revision, token=self.token, weights=weights, edited=False)

    def chat_format(self, name: str | Path, options: FormatOptions) -> "ChatFormat":
        """The chat format of a model whose weights need not be downloaded yet.

        Raises:
            UsageError, UnsupportedError: the model cannot be run here, or as `ChatFormat`.
        """
        from weight_edit.runtime.loading import chat_format, check_source

        source = self.source(name, weights=False)
        check_source(source, device=self.device, trust_remote_code=self.trust_remote_code)
        return chat_format(
            source,
            system=options.system,
            template=options.template,
            template_args=options.template_args,
            thinking=options.thinking,
            trust_remote_code=self.trust_remote_code,
        )
