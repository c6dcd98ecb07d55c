"""The names of the dtypes that models are loaded in; needs no torch."""

from weight_edit.errors import UsageError

DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_dtype(dtype: str) -> None:
    """Refuse a dtype that models cannot be loaded in.

    Raises:
        UsageError: with those there are.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
