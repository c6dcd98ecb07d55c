"""Values that the server puts into fields: they come late, and what was typed meanwhile stays."""

import json
import time
from collections.abc import Mapping
from typing import Any

# Runs in the browser, with what the fields hold at that moment. Text that is being typed into a list of choices is no
# value of it before the list is left.
_APPLY = """(told, ...now) => {
  const changes = JSON.parse(told).changes;
  return now.map((value, place) => {
    const change = changes.find((each) => each.place === place && each.was === value);
    const written = change?.name && document.activeElement?.matches(`#${change.name} input[role]`);
    return change === undefined || written ? { __type__: "update" } : change.becomes;
  });
}"""


class LateValues:
    """A way for handlers to change fields that a user may be typing in.

    A handler returns `changes` for `carrier`, which is one of its outputs, in place of values for the fields. The
    browser then changes those fields that still hold what they held when the handler was asked.

    Args:
        fields: components by name.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        import gradio

        self._names = list(fields)
        self._components = list(fields.values())
        self.carrier = gradio.Textbox(visible=False)
        self.carrier.change(
            None,
            [self.carrier, *self._components],
            self._components,
            js=_APPLY,
            show_progress="hidden",
            queue=False,
            api_visibility="private",
        )

    def changes(self, was: Mapping[str, object], becomes: Mapping[str, object]) -> str:
        """What the carrier is set to, so that fields which are as they were become what they should be.

        Args:
            was: what the handler was given of these fields, by name.
            becomes: what they should be; others stay.
        """
        listed = [
            {"place": place, "name": name, "was": was[name], "becomes": becomes[name]}
            for place, name in enumerate(self._names)
            if name in becomes and was[name] != becomes[name]
        ]
        # Two changes that are alike are two all the same.
        return json.dumps({"changes": listed, "at": time.time_ns()})
