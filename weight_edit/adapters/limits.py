"""What an adapter cannot carry, refused by name with what to do instead."""

from collections.abc import Mapping, Sequence
from typing import Any

from weight_edit.adapters.factors import Factors
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.plan import EditPlan

_MOST = 1024
"""The largest rank that may be asked for."""


def check_rank(rank: int | None) -> None:
    """Raise `UsageError` for a rank out of range."""
    if rank is not None and not 1 <= rank <= _MOST:
        raise UsageError(f"`rank={rank}` is outside of 1 to {_MOST}", option="rank")


def check_plan(plan: EditPlan, rank: int | None = None) -> None:
    """Refuse an edit that no LoRA can express.

    Args:
        rank: what the factors are cut to; None for exact ones.

    Raises:
        UnsupportedError: lengths are kept, which has full rank, and no rank is given; a parameter that is no matrix of
            a linear map, a stack of them or an embedding changes; norms would have to change; or what a tied
            unembedding becomes would be another edit before merging than after it.
    """
    if rank is None and any(edit.keep_norms for edit in plan.edits):
        raise UnsupportedError(
            "norm-preserving ablation rescales every column of a matrix, which is not of low rank; `rank=R` makes an "
            "adapter of that rank and says what it loses; or use bake",
            option="rank",
        )
    if plan.norm_biases:
        raise UnsupportedError(f"'{next(iter(plan.norm_biases))}' changes too, which a LoRA cannot carry; use bake")
    _check_parameters(plan)
    tied = plan.tied_edit
    gone = plan.complete and plan.stream is not None and plan.stream.idempotent
    # Cut factors need not remove all, and lengths that are kept make other rows.
    exact = tied is None or (not tied.keep_norms and (rank is None or tied.map.rank <= rank))
    if tied is not None and tied.map.rank and not (gone and exact):
        raise tied_apart(plan)


def tied_apart(plan: EditPlan) -> UnsupportedError:
    """The error where a tied unembedding would be another one before merging than after it."""
    return UnsupportedError(
        f"'{plan.anatomy.unembedding}' is tied to the embedding, so that an adapter of the embedding edits one of "
        "them before it is merged and both after, which differ where an edit leaves something along the "
        "directions; `embeddings='untie'` stores an unembedding of its own, skip leaves both; or use bake",
        option="embeddings",
    )


def _check_parameters(plan: EditPlan) -> None:
    changes, shapes = plan.tensors(), plan.anatomy.shapes
    writing = [writer for writer in plan.anatomy.writers if writer.weight in changes]
    for writer in writing:
        # An expert's stack is a parameter of the module that holds all of them.
        if len(shapes.get(writer.weight, (0, 0))) == 2 and writer.weight != f"{writer.module}.weight":
            raise UnsupportedError(f"'{writer.weight}' is no linear map, and an adapter cannot carry it; use bake")
    weights = [writer.weight for writer in writing]
    for turn in plan.reflections:
        if turn.low_rank is None:
            raise UnsupportedError(
                f"{plan.anatomy.architecture}: a reflection at a layer changes the norms in front of what reads "
                "(their biases, or gains of zero), which a LoRA cannot carry; use bake, or leave `at` out",
                option="at",
            )
        weights += list(turn.low_rank)
    twice = next((name for name in weights if weights.count(name) > 1), None)
    if twice is not None:
        raise UnsupportedError(f"'{twice}' both reads and writes, which an adapter cannot tell apart; use bake")
    for name in weights:
        ndim = len(shapes.get(name, (0, 0)))
        if ndim not in (2, 3) or (ndim == 2 and not name.endswith(".weight")):
            raise UnsupportedError(f"'{name}' is no matrix of a linear map, and an adapter cannot carry it; use bake")


def merges_with_embedding(plan: EditPlan) -> bool:
    """Whether the adapter edits a tied unembedding only once it is merged."""
    return plan.tied_edit is not None and plan.tied_edit.changes_weight


def check_own_biases(made: Sequence[Factors]) -> None:
    """Refuse biases of the adapter's own (PEFT's `lora_bias`) beside what cannot have them.

    Raises:
        UnsupportedError: embeddings or stacks of experts are adapted too.
    """
    own = next((each.module for each in made if each.bias is not None and each.stored is None), None)
    embedding = next((each.module for each in made if each.embedding), None)
    if own is not None and embedding is not None:
        raise UnsupportedError(
            f"'{own}' has no bias, and adapters with biases of their own (lora_bias) cannot adapt embeddings, as "
            f"'{embedding}' here; let the constant enter with the embedding (`options: enter=embedding`), leave that "
            "as it is (`embeddings='skip'`), or use bake",
            option=("options", "embeddings"),
        )
    stack = next((each.parameter for each in made if not each.of_module), None)
    if own is not None and stack is not None:
        raise UnsupportedError(
            f"'{own}' has no bias, and adapters with biases of their own (lora_bias) cannot adapt a parameter, as the "
            f"experts' '{stack}' here; let the constant enter with the embedding (`options: enter=embedding`), or use "
            "bake",
            option=("options", "kind"),
        )


def check_shared(model: Any, config: Mapping[str, Any], embedding: str) -> None:
    """Raise `UnsupportedError` if an adapted parameter is shared with another module.

    Before merging only the adapted module would be edited, and after it both. The embedding is exempt: `factors`
    takes care of an unembedding that is tied to it.

    Args:
        model: on any device.
        config: of the adapter.
        embedding: the name of the embedding's weight.

    Raises:
        UnsupportedError: names the two; also where PEFT would store more modules whole than are meant.
    """
    adapted = {f"{module}.weight" for module in config["target_modules"] or ()} | set(config["target_parameters"] or ())
    held: dict[int, str] = {}
    # Those that are adapted first, so that they meet all others.
    for name, parameter in sorted(model.named_parameters(remove_duplicate=False), key=lambda it: it[0] not in adapted):
        first = held.setdefault(id(parameter), name)
        if first != name and first in adapted and first != embedding:
            raise UnsupportedError(f"'{first}' and '{name}' are one tensor, so that an adapter edits both; use bake")
    for module in config["modules_to_save"] or ():
        # PEFT takes every module whose name ends so.
        others = [name for name, _ in model.named_modules() if name.endswith(module) and name != module]
        if others:
            raise UnsupportedError(f"PEFT would store '{others[0]}' in the adapter with '{module}'; use bake")
