"""Repeated proofs of one model's edit, with several ranks and seeds, through the disk."""

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from weight_edit.hub.headers import with_headers
from weight_edit.inspection.catalogue.disk_trial import DiskTrial, through_disk
from weight_edit.inspection.inspect import inspect
from weight_edit.runtime.loading import read_config
from weight_edit.utils.cache_folder import own_cache
from weight_edit.utils.progress import bar

ROUNDS = ((1, 0), (2, 1), (5, 2))
"""(number of directions, seed) of each round."""


@dataclass(frozen=True)
class ProofRounds:
    """The results of several proofs of one model.

    Attributes:
        name: what the user called it.
        architecture: the class.
        n_layers: blocks of the narrow copy: as many as the model has.
        rounds: what was measured.
    """

    name: str
    architecture: str
    n_layers: int
    rounds: tuple[DiskTrial, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was left and hooks agreed with weights in every round."""
        return all(measured.passed for measured in self.rounds)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        rounds = [{**asdict(measured), "passed": measured.passed} for measured in self.rounds]
        shown = {"model": self.name, "architecture": self.architecture, "n_layers": self.n_layers}
        return {**shown, "passed": self.passed, "rounds": rounds}


def prove_in_rounds(
    model: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> ProofRounds:
    """Derive a model's anatomy and prove it in several rounds, without the cache.

    A narrow random copy with all of the model's blocks is saved, baked, loaded back and measured. The model's own
    tensors are looked for too, as `inspect` does. Of a Hub model no weights are downloaded.

    Raises:
        UsageError: no such model.
        UnsupportedError: with the module that is not understood.
    """
    with TemporaryDirectory(prefix="weight-edit-") as place, bar("proving", len(ROUNDS) + 1) as progress:
        folder = Path(place)
        with own_cache(folder / "cache"):
            progress.say(f"{model}: deriving the anatomy on a narrow copy")
            anatomy = inspect(model, revision=revision, token=token, trust_remote_code=trust_remote_code).anatomy
            progress.advance()
        with with_headers(model, revision=revision, token=token) as (source, _):
            config = read_config(source, trust_remote_code=trust_remote_code)
            rounds = []
            for directions, seed in ROUNDS:
                progress.say(f"{directions} direction{'s' * (directions > 1)}, seed {seed}: save, bake, load, measure")
                measured = through_disk(
                    config,
                    folder,
                    directions=directions,
                    seed=seed,
                    anatomy=anatomy,
                    code=source.path if trust_remote_code else None,
                )
                rounds.append(measured)
                progress.advance()
    return ProofRounds(str(model), anatomy.architecture, anatomy.n_layers, tuple(rounds))
