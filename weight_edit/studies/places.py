"""The stream of prompts at chosen places, with or without edits."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from weight_edit.errors import UsageError, VerificationError
from weight_edit.plan.hooks import trial_hooks
from weight_edit.plan.step import EditStep
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.recipe.recipe import MAIN
from weight_edit.runtime.activations import mean_residuals, residuals
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.overflow import check_stream
from weight_edit.runtime.points import Point
from weight_edit.studies.lab import Lab
from weight_edit.studies.settings import Position


@dataclass(frozen=True)
class Place:
    """A place to read directions at.

    Attributes:
        layer: at this block's input.
        position: from a prompt's end, negative; None for the mean over all of a prompt's tokens.
    """

    layer: int
    position: int | None


def place_of(lab: Lab, name: str | None = None, layer: int | None = None, position: Position | None = None) -> Place:
    """The place where directions were found, or the given place.

    Raises:
        UsageError: nothing of that name was found, the directions do not say where, or the model has no such block.
    """
    asked = layer is not None and position is not None
    if not asked and (name or MAIN) == MAIN and MAIN not in lab.found:
        raise UsageError("there is no 'find' whose place could be used; give the study a 'layer' and a 'position'")
    known = {} if asked else lab.directions(name).metadata
    layer = known.get("layer") if layer is None else layer
    position = known.get("position") if position is None else position
    if layer is None:
        raise UsageError("the directions do not say at which layer they were found; give the study a 'layer'")
    count = lab.model.anatomy.n_layers
    if not 0 <= layer < count:
        raise UsageError(f"layer {layer} does not exist: the model's are 0 to {count - 1}")
    return Place(layer, None if position == "all" else position)


def stream_of(
    lab: Lab,
    prompts: PromptSet,
    points: Sequence[Point],
    position: int | None,
    steps: Sequence[EditStep] = (),
    chat_format: ChatFormat | None = None,
) -> Tensor:
    """The stream at one position of each prompt under some edits, on the CPU.

    Shape (prompts, points, d_model), float64.

    An edit at a block's input has been made where that input is read.

    Args:
        chat_format: how prompts become tokens; the run's own when None.

    Raises:
        UsageError, UnsupportedError: as `trial_hooks`; or a prompt is shorter than the position reaches back, or the
            stream is not finite.
        VerificationError: it is not finite under the edits.
    """
    chat = chat_format or lab.format
    sequences = [chat.encode(prompt) for prompt in prompts.prompts]
    # Hooks of the reading are attached later, so they run after those of the edit.
    with hooked(lab.model.model, trial_hooks(lab.model, steps, embeddings=lab.embeddings)):
        if position is None:
            found = mean_residuals(lab.model, sequences, points, batch_size=128, description=None)
        else:
            found = residuals(lab.model, sequences, points, [position], batch_size=128, description=None)[:, 0]
        # Under an edit this is a finding about it, without one it is the model's dtype that does not do.
        check_stream(lab.model, sequences, found, VerificationError if steps else UsageError)
    return found.double()


def points_from(lab: Lab, layer: int) -> list[Point]:
    """The inputs of a block and all later ones, and the last block's output."""
    count = lab.model.anatomy.n_layers
    return [*(Point("resid_pre", each) for each in range(layer, count)), Point("resid_post", count - 1)]


def need_set(lab: Lab, role: str) -> PromptSet:
    """The prompt set of a role; refuses a run that lacks it.

    Raises:
        UsageError: the recipe names none for that role.
    """
    found = lab.sets.get(role)
    if found is None:
        raise UsageError(f"this study needs prompts to measure on: give the recipe 'evaluate.{role}'")
    return found
