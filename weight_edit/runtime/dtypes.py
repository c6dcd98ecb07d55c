"""The dtypes that models are loaded in, by name; no torch is needed to refuse others."""

from weight_edit.errors import UsageError

DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_dtype(dtype: str) -> None:
    """Refuse a dtype that models are not loaded in.

    Raises:
        UsageError: with those there are.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
