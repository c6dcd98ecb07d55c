"""A chat: one or two sides that answer the same prompts, with an edit under trial, token by token."""

import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from weight_edit.chat.edit import ChatEdit
from weight_edit.chat.meter import Meter, Scale
from weight_edit.chat.passes import CachedPasses
from weight_edit.chat.sampling import Sampling
from weight_edit.chat.speaker import Side, Speaker
from weight_edit.chat.turns import Ended, Token, Turn
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.plan.hooks import trial_hooks
from weight_edit.plan.step import EditStep
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.hooks import Hook
from weight_edit.runtime.loading import Model
from weight_edit.runtime.options import FormatOptions


class ChatSession:
    """A chat with a model, alone, beside its base, or beside itself under an edit.

    Prompts are common to all sides; each side goes on from its own answers. One reply is given at a time. Every method
    leaves the session as it was when it raises.

    Attributes:
        sides: who answers: the base first, where there are two.
        turns: what was said.
        sampling: how tokens are taken; may be set between replies.
        memory: whether earlier turns are part of what the sides are asked; may be set between replies. Without it each
            prompt is asked alone.

    Args:
        model: that speaks.
        against: a base beside it; the edit is made of no side then, and `edit` serves the measuring alone.
        edit: the edit under trial on `model`, whose unedited answers are the other side.
        alone: leave out the unedited side.
        along: directions that the stream is measured along; those of the edit when None.
        measure_at: the block at whose input it is measured; where the directions were found when None.
        options: system prompt, template, its arguments, thinking.

    Raises:
        UsageError: what does not go together, or what `ChatFormat`, `Meter` and `EditStep` refuse.
        UnsupportedError: an edit that the model cannot have.
    """

    def __init__(
        self,
        model: Model,
        *,
        against: Model | None = None,
        edit: ChatEdit | None = None,
        alone: bool = False,
        along: DirectionRows | None = None,
        measure_at: int | None = None,
        options: FormatOptions | None = None,
        sampling: Sampling | None = None,
        memory: bool = True,
    ) -> None:
        if against is not None and edit is not None:
            raise UsageError("an edit is tried beside the unedited model: leave `against` out", option="against")
        self.sampling = sampling or Sampling()
        self.memory = memory
        self.turns: list[Turn] = []
        self._edit, self._model = edit, model
        self._options = options or FormatOptions()
        directions = along if along is not None else edit.directions if edit is not None else None
        models = [against, model] if against is not None else [model] if edit is None or alone else [model, model]
        self._meters = [
            None if directions is None else Meter(each, directions, measure_at=measure_at) for each in models
        ]
        formats = self._formats(models, self._options)
        names = _names(models, edited=edit is not None)
        self.sides: tuple[Side, ...] = tuple(
            Side(name=name, model=each, format=formats[id(each)], passes=CachedPasses(each, meter=meter))
            for name, each, meter in zip(names, models, self._meters, strict=True)
        )
        if edit is not None:
            self.sides[-1].edited = True
            self.sides[-1].passes.change(self._hooks(edit))
        self._stop = threading.Event()
        self._busy = threading.Lock()

    @property
    def edit(self) -> ChatEdit | None:
        """The edit under trial; None where there is none."""
        return self._edit

    @property
    def options(self) -> FormatOptions:
        """System prompt, template, its arguments, thinking."""
        return self._options

    @property
    def scale(self) -> Scale | None:
        """What components are compared with, where that is known."""
        return None if self._meters[-1] is None else self._meters[-1].scale

    @property
    def layer(self) -> int | None:
        """The block at whose input the stream is measured; None where it is not."""
        return None if self._meters[-1] is None else self._meters[-1].layer

    def reply(self, prompt: str) -> Generator[Token | Ended]:
        """The answers of all sides to a prompt, as they come: tokens of the sides in turn, and each side's end.

        The turn is in `turns` when the iterator is exhausted. One that is closed before, or stopped, leaves the turn as
        far as the answers have come, and none where no token has come.

        Raises:
            UsageError: another reply is still being given, the prompt is empty, or the template fails on it; while it
                is iterated, as `Speaker.step`: the turn is left out then.
        """
        if not prompt.strip():
            raise UsageError("the prompt is empty")
        return self._reply(prompt, 0)

    def retry(self) -> Generator[Token | Ended]:
        """The last prompt answered again, in place of its answers; drawn with other numbers at a temperature.

        Raises:
            UsageError: there is no turn, or as `reply`.
        """
        if not self.turns:
            raise UsageError("there is no answer yet that could be given again")
        return self._reply(self.turns[-1].prompt, self.turns[-1].attempt + 1)

    def stop(self) -> None:
        """End the reply that is being given, at its next token; from any thread."""
        self._stop.set()

    def undo(self) -> Turn:
        """Take the last turn back, and give it.

        Raises:
            UsageError: there is none, or a reply is being given.
        """
        self._check_idle()
        if not self.turns:
            raise UsageError("there is no turn that could be taken back")
        return self.turns.pop()

    def clear(self) -> None:
        """Forget all turns.

        Raises:
            UsageError: a reply is being given.
        """
        self._check_idle()
        self.turns.clear()

    def change_edit(self, **changes: Any) -> ChatEdit:
        """Change fields of the edit, and give the new one; another kind begins with its own options' defaults.

        Raises:
            UsageError, UnsupportedError: there is no edit, a reply is being given, or the new one makes no sense.
        """
        self._check_idle()
        if self._edit is None:
            raise UsageError("there is no edit under trial; begin the chat with `directions`", option="directions")
        if changes.get("kind", self._edit.kind) != self._edit.kind:
            changes = {"options": {}, **changes}
        edit = replace(self._edit, **changes)
        hooks = self._hooks(edit)
        self._edit = edit
        self.sides[-1].passes.change(hooks)
        return edit

    def change_format(self, **changes: Any) -> None:
        """Change fields of the `FormatOptions`; the conversation goes on with them.

        Raises:
            UsageError: a reply is being given, or a template cannot do it.
        """
        self._check_idle()
        options = replace(self._options, **changes)
        formats = self._formats([side.model for side in self.sides], options)
        self._options = options
        for side in self.sides:
            side.format = formats[id(side.model)]

    def to_dict(self) -> dict[str, Any]:
        """The whole chat as JSON values."""
        scale = self.scale
        return {
            "sides": [
                {
                    "name": side.name,
                    "model": side.model.source.public_name,
                    "revision": side.model.source.revision,
                    "edited": side.edited,
                }
                for side in self.sides
            ],
            "edit": None if self._edit is None else self._edit.described,
            "layer": self.layer,
            "scale": None if scale is None else {"baseline": scale.baseline, "target": scale.target},
            "system": self._options.system,
            "template_args": dict(self._options.template_args),
            "thinking": self._options.thinking,
            "memory": self.memory,
            "temperature": self.sampling.temperature,
            "seed": self.sampling.seed,
            "max_new_tokens": self.sampling.max_new_tokens,
            "turns": [turn.to_dict() for turn in self.turns],
        }

    def _reply(self, prompt: str, attempt: int) -> Generator[Token | Ended]:
        self._check_idle()
        turns = self.turns[:-1] if attempt else self.turns
        earlier = turns if self.memory else []
        edit = None if self._edit is None else self._edit.described
        speakers = []
        for number, side in enumerate(self.sides):
            messages = [message for turn in earlier for message in turn.messages(number)]
            sequence = side.format.encode_turns([*messages, {"role": "user", "content": prompt}])
            under = edit if side.edited else None
            draw = (len(turns), attempt)
            speakers.append(Speaker(number, side, sequence, self.sampling, draw=draw, edit=under))
        self._stop.clear()
        return self._given(prompt, attempt, speakers)

    def _given(self, prompt: str, attempt: int, speakers: Sequence[Speaker]) -> Generator[Token | Ended]:
        if not self._busy.acquire(blocking=False):
            raise _busy()
        try:
            yield from self._spoken(speakers)
            self._keep(prompt, attempt, speakers)
        except (GeneratorExit, KeyboardInterrupt):
            # Whoever listens has gone, or will not wait for a pass to end.
            self._keep(prompt, attempt, speakers)
            raise
        finally:
            self._busy.release()

    def _spoken(self, speakers: Sequence[Speaker]) -> Generator[Token | Ended]:
        """The tokens of all speakers, in turn; one after the other where an edit changes parameters."""
        in_turn = any(speaker.side.passes.on_parameters for speaker in speakers)
        for together in [[each] for each in speakers] if in_turn else [speakers]:
            live = list(together)
            while live:
                for speaker in list(live):
                    over = self._stop.is_set() or speaker.reason is not None
                    token = None if over else speaker.step()
                    if token is not None:
                        yield token
                    if token is None or speaker.reason is not None:
                        live.remove(speaker)
                        rest = speaker.rest()
                        if rest is not None:
                            yield rest
                        yield Ended(side=speaker.number, answer=speaker.answer())

    def _keep(self, prompt: str, attempt: int, speakers: Sequence[Speaker]) -> None:
        answers = tuple(speaker.answer() for speaker in speakers)
        if any(answer.tokens or answer.reason != "stopped" for answer in answers):
            if attempt:
                # Only now: another try of which nothing came leaves the answers that there were.
                self.turns.pop()
            self.turns.append(Turn(prompt=prompt, answers=answers, attempt=attempt))

    def _check_idle(self) -> None:
        if self._busy.locked():
            raise _busy()

    def _hooks(self, edit: ChatEdit) -> list[Hook]:
        step: EditStep | None = edit.step
        return [] if step is None else trial_hooks(self._model, [step])

    def _formats(self, models: Sequence[Model], options: FormatOptions) -> Mapping[int, ChatFormat]:
        """The chat format of each model, by its identity: making one tries the template."""
        return {
            key: ChatFormat(
                model.tokenizer,
                system=options.system,
                template=options.template,
                template_args=options.template_args,
                thinking=options.thinking,
            )
            for key, model in {id(model): model for model in models}.items()
        }


def _busy() -> UsageError:
    return UsageError("a reply is still being given; stop it first, or wait for its end")


def _names(models: Sequence[Model], *, edited: bool) -> list[str]:
    """The sides' names: those of the models, told apart."""
    names = [model.source.public_name for model in models]
    if edited:
        names[-1] = f"{names[-1]} (edited)"
    elif len(names) == 2 and names[0] == names[1]:
        names = [f"{names[0]} (base)", names[1]]
    return names
