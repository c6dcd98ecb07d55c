"""The step `geometry` of a run: the stream of the evaluated prompts before and after the edit, in `geometry.json`."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.directions.directions import load_directions
from weight_edit.directions.geometry import VERSION, Place, Side, chosen_prompts, geometry_document, side_of
from weight_edit.errors import WeightEditError, first_line
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import Model
from weight_edit.utils.json import json_safe
from weight_edit.utils.progress import announce

GEOMETRY = "geometry.json"


class Geometry:
    """The geometry of a run; each model is read while another step has it in memory, or else loaded.

    Args:
        name: of the directions that were found.
        sets: the evaluated sets.
        chat_format: a model's.
        note: what else is to be said of the directions, in a few words.
    """

    def __init__(
        self,
        name: str,
        sets: Mapping[str, PromptSet | None],
        chat_format: Callable[[Model], ChatFormat],
        note: str = "",
    ) -> None:
        self._name, self._sets, self._format, self._note = name, sets, chat_format, note
        self._prompts = chosen_prompts(sets)
        self._place: Place | None = None
        self._base: Side | None = None
        self._edited: Side | None = None
        self._missing = ""

    @contextmanager
    def _spared(self) -> Iterator[None]:
        """Within the context, an error is the reason why there is no geometry: a run is worth more than its picture."""
        try:
            yield
        except (WeightEditError, RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
            self._missing = first_line(error)
            announce(f"no geometry: {self._missing}")

    def read_base(self, model: Model, directions: Path) -> None:
        """Read the unedited model's part, unless that is done.

        Args:
            directions: the file of the directions.
        """
        if self._base is not None or self._missing:
            return
        with self._spared():
            self._place = Place.of(self._name, load_directions(directions).rows, self._note)
            if self._place is None:
                self._missing = f"the directions '{self._name}' do not say at which layer they were found"
            else:
                self._base = side_of(model, self._format(model), self._prompts, self._place)

    def read_edited(self, model: Model) -> None:
        """Read the edited model's part, where the unedited one's is known."""
        if self._base is None or self._place is None or self._missing:
            return
        with self._spared():
            self._edited = side_of(model, self._format(model), self._prompts, self._place, self._base.across)

    def write(
        self, out: Path, directions: Path, base: Callable[[], Model], edited: Callable[[], Model]
    ) -> dict[str, Any]:
        """Write the file, and give the step's result: the place, and the separation there before and after.

        Args:
            out: the file.
            directions: the file of the directions.
            base, edited: load a model, for a part that has not been read; one is dropped before the other is loaded.
        """
        with self._spared():
            if self._base is None and not self._missing:
                self.read_base(base(), directions)
            if self._edited is None and not self._missing:
                self.read_edited(edited())
        if self._place is None or self._base is None or self._edited is None:
            write_whole(out, json.dumps({"version": VERSION, "missing": self._missing}) + "\n")
            return {"missing": self._missing}
        content = geometry_document(self._place, self._sets, self._prompts, self._base, self._edited)
        write_whole(out, json.dumps(json_safe(content), allow_nan=False) + "\n")
        found = {"direction": self._name, "layer": content["layer"], "position": content["position"]}
        separation = content["separation"]
        there = separation[self._place.layer] if separation else {"base": None, "edited": None}
        return {**found, "before": there["base"], "after": there["edited"]}
