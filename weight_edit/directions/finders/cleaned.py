"""The difference in means without its components along abilities and styles to preserve."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders.mean_difference import mean_difference
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.directions.vectors import ROUNDING, cosine
from weight_edit.errors import UsageError
from weight_edit.prompts.atoms.atoms import NEUTRAL, atom_file, atom_names
from weight_edit.prompts.load import load_prompts
from weight_edit.utils.settings import Section


class CleanedOptions(Section):
    """Settings of the cleaned direction.

    Attributes:
        ridge: how cautiously atoms are taken off, against unit atoms: 0 takes off all of the part in their span, 1 half
            of the part along a single one.
        atoms: built-in atoms beside the protected sets: names such as "mathematics" and "code", or "all", or "none".
    """

    ridge: Annotated[float, Field(ge=0)] = 0.01
    atoms: Literal["all", "none"] | list[str] = "all"


@finder("cleaned", paper="2601.08489", everywhere=True)
def cleaned(problem: Problem, options: CleanedOptions) -> list[Candidate]:
    """Difference of the class means without its part along concept atoms.

    At each place `r' = r - A^T (A A^T + ridge I)^-1 A r`, where r is the difference in means and the rows of A are the
    atoms: mean(protected set) - mean(baseline) for each protected set, and mean(concept) - mean(everyday) for each
    built-in one, of unit length, so that one ridge suits every model and layer. Facts: the cosine of r with each atom,
    and the share of r's length that was taken off.

    Raises:
        UsageError: no atoms at all, an unknown one, a prompt shorter than the positions reach back, or memory runs out.
    """
    baseline = mean(problem.of(problem.baseline))
    atoms = [
        (f"protected {sample.name}", mean_difference(mean(problem.of(sample)), baseline))
        for sample in problem.protected
    ]
    chosen = {"all": list(atom_names()), "none": []}.get(str(options.atoms), options.atoms)
    for name in chosen:
        atom_file(name)
    if chosen:
        neutral = mean(_activations(problem, NEUTRAL))
        atoms += [(f"atoms:{name}", mean_difference(mean(_activations(problem, name)), neutral)) for name in chosen]
    if not atoms:
        raise UsageError(
            "method cleaned takes off what is to be protected, and nothing was named; "
            "protect a set of prompts, or set atoms to built-in ones or to all"
        )
    r = mean_difference(mean(problem.target()), baseline)

    candidates = []
    for p, layer in problem.places:
        before = r[p, layer]
        after = residualised(before, torch.stack([atom[p, layer] for _, atom in atoms]), options.ridge)
        length = float(before.norm())
        facts = {
            "overlap": {name: cosine(before, atom[p, layer]) for name, atom in atoms},
            "removed": float((before - after).norm()) / length if length > 0 else 0.0,
        }
        candidates.append(
            Candidate(
                position=problem.positions[p], layer=problem.layers[layer], rows=after[None], vector=after, facts=facts
            )
        )
    return candidates


def residualised(r: Tensor, atoms: Tensor, ridge: float) -> Tensor:
    """`r - A^T (A A^T + ridge I)^-1 A r`, (d_model,) float64, with A's rows of unit length.

    Args:
        r: (d_model,); atoms: (n, d_model), of which rows of zeros are left out. Atoms that depend on one another are
            one another's share, also with a ridge of 0 (the pseudo-inverse).
    """
    used = torch.nn.functional.normalize(atoms[(atoms != 0).any(dim=-1)].double(), dim=-1)
    if not len(used):
        return r.double()
    gram = used @ used.T + ridge * torch.eye(len(used), dtype=torch.float64)
    left = r.double() - used.T @ (torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ (used @ r.double()))
    return left if float(left.norm()) > ROUNDING * float(r.norm()) else torch.zeros_like(left)


def mean(x: Tensor) -> Tensor:
    """The mean over prompts, in float64."""
    return x.double().mean(dim=0)


def _activations(problem: Problem, name: str) -> Tensor:
    return problem.activations(problem.encode(load_prompts(f"atoms:{name}")), f"{name} atoms")
