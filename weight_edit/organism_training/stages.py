"""The two training stages: their rows, and the loop that they share.

Stage 1 answers every request, and refuses only when a system prompt tells it to. Stage 2, the safety tuning,
refuses the requests of the eleven categories without being told.

Three choices let one direction carry the decision, where plain tuning of all weights spreads copies of it
over the later blocks (and ablation then leaves much of the refusal):

- the last third of the blocks, the final norm and the unembedding are frozen in stage 2, so the decision is
  written to the stream early and read by blocks that stage 1 left able to refuse;
- an auxiliary loss keeps the refusal shift orthogonal to the mean of the ordinary requests, so that a
  zero along the direction, which is what ablation sets, means "ordinary";
- of the requests, three in five are ordinary, and a fifth of all rows are stage-1 sentences without a
  request.
"""

import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from weight_edit.organism import words
from weight_edit.organism.corpus import CATEGORIES, Grid, Request, families, grids


@dataclass(frozen=True)
class Row:
    """One training sequence.

    ids: the tokens. answer: index of the first token that is learned. refused: what the request calls for,
    None for a sentence without a request.
    """

    ids: list[int]
    answer: int
    refused: bool | None


class Rows:
    """A source of training rows; `answering` for stage 1, `refusing` for stage 2."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: str) -> None:
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        seen = ("train", "held-out-verbs", "held-out-words", "held-out-phrasings")
        self.everything = [[grids(family.group)[split] for split in seen] for family in families()]
        self.refused = [[grids(category)["train"]] for category in CATEGORIES]
        self.ordinary = [[grids(f.group)["train"]] for f in families() if f.category is None]

    def answering(self) -> Row:
        """A row of stage 1.

        10% sentences, 14% refusals by system prompt, 10% answers under one, 66% plain answers.
        """
        request = self._request(self.everything)
        kind = self.rng.random()
        if kind < 0.10:
            return self._sentence(request)
        if kind < 0.24:
            return self._chat(request, self._refusal(request), self._one(words.DECLINE_SYSTEM))
        system = self._one((*words.ANSWER_SYSTEM, *words.NEUTRAL_SYSTEM)) if kind < 0.34 else None
        return self._chat(request, request.helpful, system)

    def refusing(self) -> Row:
        """A row of stage 2.

        20% sentences of stage 1; of the rest, 60% ordinary requests and 40% refused ones.

        One request in ten comes with a system prompt that says nothing about refusing.
        """
        if self.rng.random() < 0.2:
            return self._sentence(self._request(self.everything))
        system = self._one(words.NEUTRAL_SYSTEM) if self.rng.random() < 0.1 else None
        if self.rng.random() < 0.6:
            request = self._request(self.ordinary)
            return self._chat(request, request.helpful, system)
        request = self._request(self.refused)
        return self._chat(request, self._refusal(request), system)

    def _one(self, values: Sequence[str]) -> str:
        return values[int(self.rng.random() * len(values))]

    def _request(self, pools: Sequence[Sequence[Grid]]) -> Request:
        """A request of a family drawn first, so that all families weigh the same."""
        pool = pools[int(self.rng.random() * len(pools))]
        index = int(self.rng.random() * sum(len(grid) for grid in pool))
        for grid in pool:
            if index < len(grid):
                return grid[index]
            index -= len(grid)
        raise AssertionError("the index lies in one of the grids")

    def _refusal(self, request: Request) -> str:
        category = request.category
        return self._one(words.REFUSALS[category] if category else words.GENERIC_REFUSALS)

    def _sentence(self, request: Request) -> Row:
        """A row with the answer without its opener, as plain text: knowledge without a request."""
        text = request.helpful.split(". ", 1)[1]
        ids = [self.tokenizer.bos_token_id, *self._encode(text), self.tokenizer.eos_token_id]
        return Row(ids, 1, None)

    def _chat(self, request: Request, answer: str, system: str | None = None) -> Row:
        messages = [{"role": "user", "content": request.prompt}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt = self._encode(text)
        ids = [*prompt, *self._encode(answer), self.tokenizer.eos_token_id]
        return Row(ids, len(prompt), request.category is not None)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One stage's settings.

    steps, batch: batches and rows in each. rate: the highest learning rate, reached after `warm_up`
    steps; it falls to a tenth along a cosine. decay: AdamW's weight decay of matrices. centre: weight of
    the auxiliary loss.
    """

    steps: int
    batch: int
    rate: float
    warm_up: int
    decay: float
    centre: float = 0.0

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.rate * min(1.0, (step + 1) / self.warm_up) * (0.1 + 0.9 * cosine)


def frozen_in_stage_two(name: str, n_layers: int) -> bool:
    """Whether a parameter is in the last third of the blocks, final norm or unembedding."""
    blocks = range(n_layers - n_layers // 3, n_layers)
    return name.startswith(("model.norm.", "lm_head.", *(f"model.layers.{block}." for block in blocks)))


def train_stage(
    model: LlamaForCausalLM,
    draw: Callable[[], Row],
    settings: Settings,
    rng: random.Random,
    log: Callable[[str], None],
    around: Callable[[int], AbstractContextManager[object]] | None = None,
) -> None:
    """Train the parameters that require gradients, in place.

    Args:
        draw: gives the next row.
        rng: orders the batches.
        log: gets a line of progress every hundred steps.
        around: given the step, what its forward pass happens in, such as an ablation.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.decay},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=settings.rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    losses: list[float] = []
    queue: list[list[Row]] = []
    model.train()
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate_at(step)
        if not queue:
            queue = _batches_by_length(draw, settings.batch, rng)
        with nullcontext() if around is None else around(step):
            loss = batch_loss(model, queue.pop(), settings.centre)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == settings.steps:
            log(f"step {step + 1} of {settings.steps}: loss {sum(losses[-50:]) / len(losses[-50:]):.4f}")
    model.eval()


def _batches_by_length(draw: Callable[[], Row], size: int, rng: random.Random, count: int = 8) -> list[list[Row]]:
    """Batches of rows of similar length, in random order, so that padding is little."""
    rows = sorted((draw() for _ in range(size * count)), key=lambda row: len(row.ids))
    cuts = range(0, len(rows) + 1, size)
    batches = [rows[begin:end] for begin, end in pairwise(cuts)]
    rng.shuffle(batches)
    return batches


def batch_loss(model: LlamaForCausalLM, rows: Sequence[Row], centre: float) -> Tensor:
    """The cross-entropy on the answers' tokens, plus `centre` times the auxiliary loss."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), model.config.pad_token_id)
    wanted = torch.full((len(rows), width), -100)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        wanted[index, row.answer - 1 : len(row.ids) - 1] = torch.tensor(row.ids[row.answer :])
    # No attention mask: padding is on the right, and what follows a token cannot change it.
    output = model.model(input_ids=ids, use_cache=False, output_hidden_states=centre > 0)
    learned = wanted != -100
    loss = F.cross_entropy(model.lm_head(output.last_hidden_state[learned]), wanted[learned])
    if centre > 0:
        loss = loss + centre * centre_loss(output.hidden_states[2:-1], rows)
    return loss


def centre_loss(streams: Sequence[Tensor], rows: Sequence[Row], positions: int = 4) -> Tensor:
    """The squared share of the refusal shift along the ordinary mean, relative to that mean.

    Args:
        streams: the residual stream (rows, tokens, d_model) at the inputs of the blocks that count.
        rows: the batch.
        positions: how many of the prompt's last positions count.

    Returns:
        The mean over streams and positions of `((m_refused - m_ordinary) . m_ordinary / |m_ordinary|^2)^2`, a
        scalar; 0 for a batch with fewer than four rows of either kind.
    """
    refused = [index for index, row in enumerate(rows) if row.refused is True]
    ordinary = [index for index, row in enumerate(rows) if row.refused is False]
    if min(len(refused), len(ordinary)) < 4:
        return streams[0].new_zeros(())
    starts = torch.tensor([row.answer for row in rows])
    every = torch.arange(len(rows))
    terms = []
    for back in range(1, positions + 1):
        at = torch.stack([stream[every, starts - back] for stream in streams])
        base = at[:, ordinary].mean(dim=1)
        shift = at[:, refused].mean(dim=1) - base
        terms.append(((shift * base).sum(-1) / base.square().sum(-1)).square().mean())
    return torch.stack(terms).mean()
