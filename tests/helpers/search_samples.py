"""The embedded model as a search sees it: its judge, its prompts, the plain ablation of its refusal."""

from functools import cache

import numpy as np

from weight_edit.directions.judged_answers import Speaker
from weight_edit.directions.problem import stream_at
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.evaluation.registry import JudgeSpec
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.loading import Model, load
from weight_edit.search.own_texts import MadeTexts, SearchPrompts, made_texts
from weight_edit.search.point import Point
from weight_edit.search.strengths import Strengths

PLACE = 3, -1
"""Layer and position of a mean difference whose ablation has the embedded model answer all that it refuses."""


@cache
def organism(name: str = "organism") -> Model:
    """One of the embedded models; tests leave it alone."""
    return load(name, dtype="float32")


def organism_speaker(name: str = "organism", max_new_tokens: int = 80) -> Speaker:
    """The model with the judge of phrases."""
    model = organism(name)
    chat = ChatFormat(model.tokenizer)
    return Speaker(model=model, chat=chat, judge=JudgeSpec.parse("phrases,language=en"), max_new_tokens=max_new_tokens)


@cache
def organism_rows(name: str = "organism") -> np.ndarray:
    """The mean difference of 24 refused and 24 answered prompts at one place, (1, d_model) float32, of length 1."""
    model, (layer, position) = organism(name), PLACE
    chat = ChatFormat(model.tokenizer)
    means = []
    for kind in ("refused", "answered"):
        prompts = [chat.encode(prompt) for prompt in load_prompts(f"organism:{kind}:train").take(24).prompts]
        means.append(stream_at(model, prompts, [layer], [position]).double().mean(dim=0).reshape(-1))
    return orthonormal_rows((means[0] - means[1])[None]).astype(np.float32)


def organism_point(strength: float = 1.0, name: str = "organism") -> Point:
    """The ablation of that direction at one strength everywhere."""
    strengths = Strengths.flat(organism(name).anatomy.n_layers, strength)
    return Point(rows=organism_rows(name), strengths=strengths, origin="plain")


def organism_prompts(count: int | None = None) -> SearchPrompts:
    """Its sets: refused, answered and over-refused."""
    refused, answered, over = (
        load_prompts(f"organism:{kind}:train").at_most(count) for kind in ("refused", "answered", "over-refused")
    )
    return SearchPrompts(refused=refused, ordinary=answered, over_refused=over)


@cache
def organism_texts(n_train: int = 12, n_validation: int = 6) -> MadeTexts:
    """The texts of few of these prompts."""
    return made_texts(
        organism_speaker(), organism_prompts(), organism_point(), n_train=n_train, n_validation=n_validation
    )
