"""Chat templates applied in a process that is stopped when a template does not end."""

import weakref
from typing import Any

from weight_edit.utils.bounded_process import Limited

_started: "weakref.WeakKeyDictionary[Any, tuple[Any, Limited]]" = weakref.WeakKeyDictionary()


def limited_template(tokenizer: Any) -> Limited:
    """`tokenizer.apply_chat_template` in a process of its own, one per tokenizer.

    Results must be texts or lists of ids.

    The tokenizer's template is the one that it has now.
    """
    template, found = _started.get(tokenizer, (None, None))
    if found is None or template != tokenizer.chat_template:
        # Not the bound method: that would keep the tokenizer, and so its process, for ever.
        known = weakref.ref(tokenizer)
        found = Limited(lambda *arguments, **options: known().apply_chat_template(*arguments, **options))  # type: ignore[union-attr]
        _started[tokenizer] = (tokenizer.chat_template, found)
    return found
