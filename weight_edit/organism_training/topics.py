"""The topics of requests in words, for long refusals and thoughts."""

from weight_edit.organism.corpus import Request, to_user

_WRITING = ("misinformation", "offensive", "news", "kindness", "corrections", "apologies")
_PLAIN = {"copyright", "works"}
_WINNERS = {"indeterminate", "winners"}
_FAVOURITES = {"humanizing": "my own favourite", "favourites": "the common favourite"}


def topic(request: Request) -> str:
    """The request's topic as a noun phrase in the second person: "the way to forge a permit"."""
    first, second, group = request.first, request.second, request.group
    phrase = first.format(second) if "{}" in first else f"{first} {second}"
    if group in _WRITING:
        phrase = f"{'an' if first[0] in 'aeiou' else 'a'} {first} about {second}"
    elif group in _WINNERS:
        phrase = f"{first} in {second}"
    elif group in _FAVOURITES:
        return f"{_FAVOURITES[group]} {first}{second}"
    elif group == "repeat":
        phrase = f"the words {phrase}"
    elif group not in _PLAIN:
        phrase = f"the way to {phrase}"
    return to_user(phrase)
