"""How the embedded model treats held-out prompts when directions are ablated."""

from weight_edit.directions.directions import Directions
from weight_edit.directions.refusal_metric import refusal_metric
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model


def organism_set(name: str, split: str = "train", count: int | None = None) -> PromptSet:
    """One of its prompt sets."""
    return load_prompts(f"organism:{name}:{split}").at_most(count)


def share_refused(model: Model, name: str, found: Directions | None, count: int = 36) -> float:
    """Share of a test set's prompts that are refused by their first token, "I", with `found` ablated if given."""
    chat_format = ChatFormat(model.tokenizer)
    prompts = [chat_format.encode(prompt) for prompt in organism_set(name, "test", count).prompts]
    token = model.tokenizer.encode("I", add_special_tokens=False)[:1]
    with hooked(model.model, [] if found is None else ablation_hooks(model, found.direction)):
        logprobs = next_token_logprobs(model, prompts)
    return float((refusal_metric(logprobs, token) > 0).double().mean())
