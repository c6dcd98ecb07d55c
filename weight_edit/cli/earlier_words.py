"""Options and values of the command line by their earlier names: still taken, with a note of the present ones."""

from collections.abc import Collection, Iterator, Sequence

from weight_edit.utils.renamed import EARLIER_VALUES

EARLIER_OPTIONS = {"--edit": "--kind", "--n-prompts": "--limit"}
EARLIER_FLAGS = {"--filter-prompts": ("--filter", "first-token"), "--no-filter-prompts": ("--filter", "none")}
"""Flags without a value that are options with one now."""


def in_present_words(args: Sequence[str], known: Collection[str]) -> tuple[list[str], list[str]]:
    """A verb's arguments in the words of today, and a sentence about each that was not.

    Args:
        args: as they were given; what stands behind `--` is no option.
        known: the verb's options, such as `--kind`.
    """
    end = args.index("--") if "--" in args else len(args)
    notes: list[str] = []
    present = list(_options(args[:end], known, notes))
    return [*_values(present, known, notes), *args[end:]], notes


def _options(args: Sequence[str], known: Collection[str], notes: list[str]) -> Iterator[str]:
    for arg in args:
        name, equals, value = arg.partition("=")
        if arg in EARLIER_FLAGS and EARLIER_FLAGS[arg][0] in known and arg not in known:
            option, value = EARLIER_FLAGS[arg]
            notes.append(f"{arg} is called {option} {value} now")
            yield f"{option}={value}"
            continue
        now = EARLIER_OPTIONS.get(name)
        if now in known and name not in known:
            notes.append(f"{name} is called {now} now")
            yield f"{now}{equals}{value}"
        else:
            yield arg


def _values(args: Sequence[str], known: Collection[str], notes: list[str]) -> Iterator[str]:
    def now(option: str, value: str) -> str:
        words = EARLIER_VALUES.get(option.removeprefix("--"), {}) if option in known else {}
        if value in words:
            notes.append(f"{option} {value} is called {option} {words[value]} now")
        return words.get(value, value)

    before = ""
    for arg in args:
        # A value stands in its option's own argument, or in the one behind it.
        if arg.startswith("--"):
            name, equals, value = arg.partition("=")
            yield f"{name}{equals}{now(name, value)}"
            before = "" if equals else name
        else:
            yield now(before, arg)
            before = ""
