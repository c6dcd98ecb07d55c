"""The models that the command line names: by name, or on servers."""

from typing import TYPE_CHECKING

from weight_edit.errors import UsageError
from weight_edit.evaluation.backends import VLLM, gguf_file, opened
from weight_edit.evaluation.endpoint.endpoint import Endpoint

if TYPE_CHECKING:
    from weight_edit.runtime.options import FormatOptions


def named_targets(
    model: str | None,
    against: str | None,
    *,
    endpoint: str | None,
    endpoint_model: str | None,
    against_endpoint: str | None,
    format_options: "FormatOptions",
    concurrency: int = 8,
    fresh: bool = False,
    backend: str = "auto",
    adapter: str | None = None,
) -> tuple[str | Endpoint, str | Endpoint | None]:
    """The model that is measured and its base; of one on a server its `Endpoint`, else the name.

    Args:
        model: of a model that is loaded.
        against: the base's name, on the server of `against_endpoint` if that is given.
        endpoint, endpoint_model: the server's address and the model's name there.
        format_options: of both; a server uses its own template.
        backend: what runs models that are loaded, see `opened`; GGUF files are behind servers that are to be closed.
        adapter: what is applied to the model.

    Raises:
        UsageError: neither a model nor a server is named, or both; a name without its server or the other way round.
    """

    def on(url: str, name: str) -> Endpoint:
        if format_options.template is not None:
            raise UsageError("`template`: a server uses its own chat template; leave it out", option="template")
        if format_options.thinking is not None:
            raise UsageError(
                "`thinking`: a server uses its own chat template; give its variable, as in "
                "`template_args: enable_thinking=false`",
                option=("thinking", "template_args"),
            )
        return Endpoint(
            url,
            name,
            system=format_options.system,
            template_args=format_options.template_args,
            concurrency=concurrency,
            fresh=fresh,
        )

    if model is not None and (endpoint is not None or endpoint_model is not None):
        raise UsageError(
            f"there are two models to measure, {model} and the server's; leave MODEL out, or `endpoint` and "
            "`endpoint_model`",
            option=("endpoint", "endpoint_model"),
        )
    if model is None and (endpoint is None or endpoint_model is None):
        raise UsageError(
            "no model to measure; give MODEL, or a server's address as `endpoint` and the model's name there as "
            "`endpoint_model`",
            option=("endpoint", "endpoint_model"),
        )
    if against_endpoint is not None and against is None:
        raise UsageError(
            "`against_endpoint`: give the base's name there as `against`", option=("against_endpoint", "against")
        )
    if adapter is not None and model is None:
        raise UsageError("`adapter` is applied to a model that is loaded; give MODEL, its base", option="adapter")
    base: str | Endpoint | None = against
    if against is not None:
        # A model that llama.cpp runs may be held against a folder.
        of_base = "auto" if gguf_file(against) is None and backend != VLLM else backend
        base = (
            on(against_endpoint, against)
            if against_endpoint is not None
            else opened(against, of_base, format_options, slots=concurrency)
        )
    measured: str | Endpoint = (
        opened(model, backend, format_options, slots=concurrency, adapter=adapter)
        if model is not None
        else on(str(endpoint), str(endpoint_model))
    )
    return measured, base
