"""A loaded model: where it comes from, hooks, batches, forward passes and greedy generation."""

from weight_edit.runtime.batching import Batch, batches, run_batches
from weight_edit.runtime.forward import answer_logprobs, forward_backbone, next_token_logprobs
from weight_edit.runtime.generation import Generation, generate
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.sources import Source, resolve

__all__ = [
    "Batch",
    "Generation",
    "Hook",
    "Model",
    "Source",
    "answer_logprobs",
    "batches",
    "forward_backbone",
    "generate",
    "hooked",
    "load",
    "next_token_logprobs",
    "resolve",
    "run_batches",
]
