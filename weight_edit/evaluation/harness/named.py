"""Benchmarks of models that are named: a part of the work of the verb `evaluate`."""

from typing import TYPE_CHECKING

from weight_edit.errors import UsageError
from weight_edit.evaluation.endpoint.endpoint import Endpoint
from weight_edit.evaluation.gguf.served import ServedGguf
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.options import FormatOptions, LoadOptions
from weight_edit.utils.progress import announce

if TYPE_CHECKING:
    from weight_edit.evaluation.harness.comparison import HarnessComparison
    from weight_edit.evaluation.harness.harness import Harness
    from weight_edit.evaluation.harness.request import HarnessRequest
    from weight_edit.prompts.chat import ChatFormat
    from weight_edit.runtime.loading import Model


def prepared_harness(
    model: str | Endpoint,
    base: str | Endpoint | None,
    request: "HarnessRequest",
    *,
    load_options: LoadOptions,
    overwrite: bool = False,
) -> "Harness":
    """lm-eval ready for two models, neither of which is loaded.

    Raises:
        UsageError: one of them is on a server; or as `Harness`.
    """
    if isinstance(model, ServedGguf) or isinstance(base, ServedGguf):
        raise UsageError(
            "`harness` runs models that transformers loads; give `backend=transformers`", option=("harness", "backend")
        )
    if isinstance(model, Endpoint) or isinstance(base, Endpoint):
        raise UsageError("`harness` runs models that are loaded; leave the server out", option="harness")
    check_dtype(load_options.dtype)
    # The imports take seconds.
    from weight_edit.evaluation.harness.harness import Harness

    return Harness(request, beside_base=base is not None, overwrite=overwrite)


def measure_named(
    harness: "Harness", model: str, base: str | None, *, load_options: LoadOptions, format_options: FormatOptions
) -> "HarnessComparison":
    """The benchmarks of a model, and before it those of its base.

    Raises:
        UsageError, UnsupportedError: as `load`, `ChatFormat` and `Harness.measure`.
    """
    base_options = load_options.of_base()

    def load(name: str, options: LoadOptions, what: str) -> "tuple[Model, ChatFormat | None]":
        chat = options.chat_format(name, format_options) if harness.request.chat else None
        announce(f"lm-eval on {what}")
        return options.load(name), chat

    return harness.measure(
        lambda: load(model, load_options, "the model" if base is None else "the edited model"),
        None if base is None else lambda: load(base, base_options, "the base"),
    )
