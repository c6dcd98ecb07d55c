"""Messages whose settings, as Python writes them, are written as the command line's flags."""

import re
from collections.abc import Collection, Iterable

_OTHERWISE = {
    "answers_path": "answers",
    "endpoint_model": "model",
    "file_format": "format",
    "filter_prompts": "filter",
    "judges": "judge",
    "options": "option",
    "overrides": "set",
    "refusal_tokens": "refusal-token",
    "template_args": "template-arg",
}
"""Arguments in Python -> their flags, where the two differ by more than dashes."""

_SETTING = re.compile(r"`(?P<option>\w+)(?:(?P<sign>=|: )(?P<value>[^`]*))?`")


def flag_of(option: str) -> str:
    """The flag of an argument's name in Python, such as "--template-arg" of "template_args"."""
    return f"--{_OTHERWISE.get(option, option.replace('_', '-'))}"


def with_flags(message: str, options: Iterable[str], flags: Collection[str] | None = None) -> str:
    """The message with flags in place of the settings between backticks that it names.

    A setting is an argument, alone (`layers`), with a value (`embeddings='skip'`, `at=[3, 4]`), switched on or off
    (`overwrite=True`, `card=False`), or with an entry of several (`options: enter=found`). What else stands
    between backticks, and a setting that the verb does not take, stay as they are.

    Args:
        message: of an error.
        options: arguments that the error names.
        flags: all that the verb takes; None is not known, so that every setting becomes a flag.
    """
    named = set(options)

    def as_flag(found: re.Match[str]) -> str:
        flag, written = _written(found["option"], found["sign"], found["value"])
        return written if found["option"] in named and (flags is None or flag in flags) else found[0]

    return _SETTING.sub(as_flag, message)


def _written(option: str, sign: str | None, value: str | None) -> tuple[str, str]:
    """The flag of a setting, and the setting as the command line writes it."""
    flag = flag_of(option)
    if sign == "=" and value == "False":
        flag = f"--no-{flag[2:]}"
    if not value or (sign == "=" and value in ("True", "False")):
        return flag, flag
    if sign == "=" and value.startswith("[") and value.endswith("]"):
        value = value[1:-1].replace(" ", "")
    elif sign == "=" and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return flag, f"{flag} {value}"
