"""A loaded model: where it comes from, hooks, batches, forward passes and greedy generation."""

from typing import TYPE_CHECKING

from weight_edit.lazy import lazy
from weight_edit.runtime.sources import Source, resolve

if TYPE_CHECKING:
    from weight_edit.runtime.batching import Batch, batches, run_batches
    from weight_edit.runtime.forward import answer_logprobs, forward_backbone, next_token_logprobs
    from weight_edit.runtime.generation import Generation, generate
    from weight_edit.runtime.hooks import Hook, hooked
    from weight_edit.runtime.loading import Model, load

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

_WHERE = {
    "Batch": "batching",
    "batches": "batching",
    "run_batches": "batching",
    "answer_logprobs": "forward",
    "forward_backbone": "forward",
    "next_token_logprobs": "forward",
    "Generation": "generation",
    "generate": "generation",
    "Hook": "hooks",
    "hooked": "hooks",
    "Model": "loading",
    "load": "loading",
}

__getattr__ = lazy(__name__, _WHERE)
