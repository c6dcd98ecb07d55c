"""The session: what sides say, measured, stopped, changed and taken back."""

from pathlib import Path

import pytest
import torch

from tests.helpers.baked_organism import organism_row
from tests.helpers.chat_replies import PROMPT, texts
from weight_edit.chat.edit import ChatEdit
from weight_edit.chat.opening import open_chat
from weight_edit.chat.sampling import Sampling
from weight_edit.chat.session import ChatSession
from weight_edit.chat.turns import Ended, Token
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.generation import generate
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.points import Point


@pytest.fixture(scope="module")
def organism() -> Model:
    return load("organism")


def edited(organism: Model, **edit: object) -> ChatSession:
    """A short chat with the organism beside itself under an edit along a random direction."""
    return ChatSession(
        organism,
        edit=ChatEdit(directions=organism_row().rows, **edit),
        sampling=Sampling(max_new_tokens=12),
        memory=False,
    )


def test_sides_say_what_generate_says_of_the_base_and_of_the_baked_model(organism: Model, baked_once: Path) -> None:
    session = edited(organism)
    baked = load(baked_once)
    for prompt in (PROMPT, "Help me fix a wall at home."):
        said = texts(session.reply(prompt))
        sequence = ChatFormat(organism.tokenizer).encode(prompt)
        assert said == [generate(each, [sequence], max_new_tokens=12)[0].text for each in (organism, baked)]
        assert [answer.text for answer in session.turns[-1].answers] == said
        assert [answer.tokens for answer in session.turns[-1].answers] == [12, 12]


def test_earlier_turns_are_read_on_from_as_if_read_anew(organism: Model) -> None:
    session = edited(organism)
    session.memory = True
    for prompt in (PROMPT, "Help me fix a wall at home."):
        said = texts(session.reply(prompt))
    first = session.turns[0]
    for number, text in enumerate(said):
        turns = [*first.messages(number), {"role": "user", "content": "Help me fix a wall at home."}]
        session.sides[number].passes.forget()
        sequence = session.sides[number].format.encode_turns(turns)
        tokens = list(sequence)
        while len(tokens) < len(sequence) + 12:
            session.sides[number].passes.forget()
            tokens.append(int(session.sides[number].passes.read(tokens).logits.argmax()))
        anew = organism.tokenizer.decode(tokens[len(sequence) :])
        assert anew.partition("<|end|>")[0] == text


def test_the_component_is_that_of_the_stream_where_a_token_is_read_off(organism: Model) -> None:
    session = edited(organism)
    events = [each for each in session.reply(PROMPT) if isinstance(each, Token)]
    sequence = ChatFormat(organism.tokenizer).encode(PROMPT)
    base = [each for each in events if each.side == 0]
    whole = [*sequence, *(each.token for each in base[:-1] if each.token is not None)]
    stream = residuals(organism, [whole], [Point("resid_pre", 3)], range(-len(base), 0), description=None)
    wanted = stream.reshape(len(base), -1) @ torch.from_numpy(session.edit.directions.rows[0])
    torch.testing.assert_close(torch.tensor([each.component for each in base]), wanted, rtol=1e-3, atol=1e-3)
    assert max(abs(each.component) for each in events if each.side == 1) < 1e-4 < float(wanted.abs().max())


def test_an_edit_is_changed_between_turns_and_a_mistake_changes_nothing(organism: Model) -> None:
    session = edited(organism)
    first = texts(session.reply(PROMPT))
    session.change_edit(strength=0.0)
    base, none = texts(session.retry())
    assert none == base == first[0]
    assert session.turns[0].answers[1].edit == "ablate, strength 0: no edit"
    session.change_edit(strength=1.0)
    assert texts(session.retry()) == first
    for wrong in ({"strength": 3.0}, {"layers": frozenset({9})}, {"kind": "erase"}, {"kind": "magic"}):
        before = session.edit
        with pytest.raises(UsageError):
            session.change_edit(**wrong)
        assert session.edit is before
    assert texts(session.retry()) == first
    assert len(session.turns) == 1


def test_a_stopped_reply_stays_as_far_as_it_came_and_the_chat_goes_on(organism: Model) -> None:
    session = edited(organism)
    reply = session.reply(PROMPT)
    tokens = [next(reply), next(reply)]
    session.stop()
    ends = list(reply)
    assert [each.answer.reason for each in ends if isinstance(each, Ended)] == ["stopped", "stopped"]
    assert [answer.text for answer in session.turns[0].answers] == [each.text for each in tokens]
    session.memory = True
    assert all(texts(session.reply("Help me fix a wall at home.")))


def test_another_try_that_is_stopped_before_it_says_anything_leaves_what_was_said(organism: Model) -> None:
    session = edited(organism)
    said = texts(session.reply(PROMPT))
    again = session.retry()
    session.stop()
    assert texts(again) == ["", ""]
    assert [answer.text for answer in session.turns[0].answers] == said
    session.retry().close()
    assert len(session.turns) == 1


def test_a_reply_that_nobody_listens_to_any_more_frees_the_session(organism: Model) -> None:
    session = edited(organism)
    reply = session.reply(PROMPT)
    next(reply)
    with pytest.raises(UsageError, match="still being given"):
        session.reply("another")
    reply.close()
    assert session.turns[0].answers[0].reason == "stopped"
    session.reply("not begun").close()
    assert len(session.turns) == 1
    assert session.undo().prompt == PROMPT
    with pytest.raises(UsageError, match="no turn"):
        session.undo()
    with pytest.raises(UsageError, match="no answer yet"):
        session.retry()


def test_a_reply_that_fails_leaves_no_turn(organism: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = edited(organism)
    texts(session.reply(PROMPT))
    monkeypatch.setattr("weight_edit.chat.speaker.Chooser.choose", lambda *_: organism.embeddings)
    with pytest.raises(UsageError, match="has the token"):
        texts(session.retry())
    assert len(session.turns) == 1
    assert session.turns[0].attempt == 0


def test_draws_follow_the_seed(organism: Model) -> None:
    def drawn(seed: int) -> list[str]:
        session = ChatSession(organism, sampling=Sampling(temperature=2.0, seed=seed, max_new_tokens=8))
        return [texts(session.reply(PROMPT))[0], texts(session.retry())[0]]

    assert drawn(1) == drawn(1)
    assert len({*drawn(1), *drawn(2)}) == 4


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"temperature": float("nan")}, {"max_new_tokens": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Sampling(**wrong)


def test_the_format_is_changed_or_stays(organism: Model) -> None:
    session = edited(organism)
    session.change_format(system="Be brief.")
    assert session.sides[0].format is session.sides[1].format
    with pytest.raises(UsageError, match="template argument"):
        session.change_format(template_args={"nonsense": True})
    assert session.options.system == "Be brief."
    assert session.sides[0].format.system == "Be brief."


def test_a_base_beside_its_edit_is_measured_along_the_folders_own_directions(baked_once: Path) -> None:
    session = open_chat(baked_once, against="organism", sampling=Sampling(max_new_tokens=6))
    assert [side.name for side in session.sides] == ["organism", baked_once.name]
    assert not session.memory
    texts(session.reply(PROMPT))
    base, model = session.turns[0].answers
    assert max(map(abs, base.components)) > 1e-2 > 1e-4 > max(map(abs, model.components))
    with pytest.raises(UsageError, match="no edit under trial"):
        session.change_edit(strength=0.5)


def test_an_edit_that_weights_cannot_make_can_be_tried(organism: Model) -> None:
    from weight_edit.chat.edit_recipe import save_edit

    session = edited(organism, kind="rectify", at=(3,))
    assert all(texts(session.reply(PROMPT)))
    with pytest.raises(UnsupportedError, match="cannot be baked"):
        save_edit(session, Path("never.yaml"))
