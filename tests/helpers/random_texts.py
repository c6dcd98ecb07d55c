"""Texts of random tokens, as candidates of a search are scored on."""

import torch

from weight_edit.search.texts import Choice, Kept, Texts


def texts(seed: int = 0) -> Texts:
    """Random prompts with random continuations of unlike lengths, which begin with the same tokens."""
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 44, (count,), generator=generator).tolist())

    head = some(4)
    refused = tuple(
        Choice(prompt=(*head, *some(3 + row)), text="", refusal=some(6), answer=some(2 + row)) for row in range(4)
    )
    over = (Choice(prompt=(*head, *some(5)), text="", refusal=some(3), answer=some(8)),)
    ordinary = tuple(Kept(prompt=(*head, *some(2 + row)), text="", answer=some(5 - row)) for row in range(3))
    return Texts(refused=refused, ordinary=ordinary, over_refused=over)
