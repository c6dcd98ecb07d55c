"""Prompts that begin alike, and edits of several kinds, to be asked in one batch."""

import torch

from weight_edit.plan.hooks import ablation_hooks
from weight_edit.runtime.hooks import addition_hook
from weight_edit.runtime.variants import PLAIN, Variant

# Of float32 sums in another order, on streams of a magnitude of about 1 to 10.
CLOSE = {"atol": 5e-4, "rtol": 5e-4}


def prompts(shared: int = 12, lengths=(3, 11, 7, 7, 12, 1, 5)) -> list[list[int]]:
    """Prompts of several lengths, which begin with the same tokens."""
    generator = torch.Generator().manual_seed(3)
    head, *rest = (torch.randint(5, 44, (count,), generator=generator).tolist() for count in (shared, *lengths))
    return [head + each for each in rest]


def edits(model) -> list[Variant]:
    """The plain model, ablations of one and two directions, and additions at every block."""
    width = model.anatomy.d_model
    rows = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    ablations = [Variant(tuple(ablation_hooks(model, some))) for some in (rows[:1], rows[1:])]
    vectors = torch.randn(model.anatomy.n_layers, width, generator=torch.Generator().manual_seed(2))
    additions = [Variant((addition_hook(model, layer, vector),)) for layer, vector in enumerate(vectors)]
    return [PLAIN, *ablations, *additions]
