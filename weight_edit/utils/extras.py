"""Optional libraries, the package's extras, checked before any work."""

from importlib.util import find_spec

from weight_edit.errors import UsageError

EXTRAS = {
    "datasets": "data",
    "pyarrow": "data",
    "matplotlib": "studies",
    "gguf": "gguf",
    "lm_eval": "harness",
    "vllm": "vllm",
    "optuna": "search",
    "sqlalchemy": "search",
    "gradio": "ui",
    "fastapi": "ui",
    "uvicorn": "ui",
    "vl_convert": "report",
}
"""Library -> the extra that installs it."""

DISTRIBUTIONS = {"vl_convert": "vl-convert-python", "lm_eval": "lm-eval"}
"""Library -> the distribution that installs it, where that has another name."""


def is_installed(library: str) -> bool:
    """Whether a library can be imported, without importing it."""
    return find_spec(library) is not None


def need(library: str, use: str, option: str | None = None) -> None:
    """Check that an extra's library is installed, without importing it.

    Args:
        library: a key of `EXTRAS`.
        use: what needs it, as the start of the message.
        option: that which asks for it.

    Raises:
        UsageError: it is not, with the command that installs it.
    """
    if not is_installed(library):
        extra, distribution = EXTRAS[library], DISTRIBUTIONS.get(library, library)
        raise UsageError(
            f"{use} needs {distribution}, which is not installed; install it, or weight-edit with its extra '{extra}': "
            f"pip install {distribution}, or in a clone pip install '.[{extra}]'",
            option=option,
        )
