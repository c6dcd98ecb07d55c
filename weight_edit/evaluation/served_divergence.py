"""The divergence of the first token from the base's, of which one or both are on a server."""

from weight_edit.evaluation.divergence import Divergence
from weight_edit.evaluation.endpoint.endpoint import TOP, Endpoint
from weight_edit.evaluation.first_token import first_token_logprobs, least_divergence, top_tokens
from weight_edit.evaluation.target import ModelTarget, target_of
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import Model


def served_divergence(
    target: ModelTarget | Endpoint,
    answered: PromptSet | None,
    against: Model | Endpoint | None,
    base_format: ChatFormat | None,
    max_new_tokens: int,
    notes: list[str],
) -> Divergence | None:
    """A lower bound of the first token's divergence where a model or its base is on a server.

    Args:
        base_format: of a base that is loaded.
        notes: gets what a reader should know: that it is a bound, or why it is missing.

    Returns:
        None without a base or an answered set, and where a server sends no log-probabilities.

    Raises:
        UsageError: as `Endpoint.top_tokens` and `first_token_logprobs`.
    """
    if answered is None or against is None:
        return None
    missing = "the divergence from the base is missing: "
    tokens = []
    for each in (target_of(against, base_format), target):
        if isinstance(each, ModelTarget):
            if each.chat.opening:
                notes.append(
                    f"{missing}the template opens answers with special tokens, and a server's first token is one"
                )
                return None
            logprobs = first_token_logprobs(each.model, answered, each.chat, batch_size=each.batch_size)
            tokens.append(top_tokens(logprobs, each.model.tokenizer))
        else:
            found = each.top_tokens(answered.prompts, max_new_tokens=max_new_tokens)
            if found is None:
                notes.append(f"{missing}the server of {each.public_name} sends no log-probabilities (`top_logprobs`)")
                return None
            tokens.append(found)
    notes.append(
        f"the divergence from the base is a lower bound, from the {TOP} most probable tokens that a server names"
    )
    return least_divergence(tokens[0], tokens[1])
