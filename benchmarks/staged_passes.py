"""The passes that selection in stages leaves, on the score tables that arXiv 2406.11717 published: a Markdown table.

    python benchmarks/staged_passes.py CLONE

CLONE is a clone of andyrdt/refusal_direction, or its git directory alone. Each candidate's three scores take as many
passes over 32 prompts; told are those that the stages still ask for, an addition counted whole and from its block on,
and whether the choice is the same as by all scores, and the published one. The tables have no values of single prompts,
so that bounds are decided by the means, as the published code does; with intervals a few more candidates go on.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.scores import CandidateScore, score_of, worth_scoring
from weight_edit.directions.selection import SelectionRule, select
from weight_edit.directions.stages import Stages

RUNS = "pipeline/runs"
TABLE = "select_direction/direction_evaluations.json"
CHOSEN = "direction_metadata.json"
NAMES = {"induce": "steering_score", "kl": "kl_div_score", "bypass": "refusal_score"}


@dataclass(frozen=True, kw_only=True)
class Passes:
    """A table's passes, in passes of one candidate over one set of prompts.

    Attributes:
        model: whose table it is.
        candidates: in the table.
        eligible: those of layers that may be chosen.
        asked: how many are asked for each score.
        resumed: the additions, each counted by the share of the blocks from its own on.
        same: whether the stages choose what all scores choose.
        published: whether that is what was published.
    """

    model: str
    candidates: int
    eligible: int
    asked: dict[str, int]
    resumed: float
    same: bool
    published: bool

    @property
    def whole(self) -> float:
        """The share of the passes that is left."""
        return sum(self.asked.values()) / (3 * self.candidates)

    @property
    def left(self) -> float:
        """The same with additions from their block on."""
        return (self.asked["kl"] + self.asked["bypass"] + self.resumed) / (3 * self.candidates)

    @property
    def of_eligible(self) -> float:
        """`left` of the passes that candidates of layers that may be chosen take."""
        return self.left * self.candidates / self.eligible


def read(clone: Path, path: str) -> Any:
    """A JSON file of the clone's last commit."""
    git = clone / ".git" if (clone / ".git").exists() else clone
    found = subprocess.run(["git", "--git-dir", str(git), "show", f"HEAD:{path}"], check=True, capture_output=True)
    return json.loads(found.stdout)


def models(clone: Path) -> list[str]:
    """The models that have a table."""
    git = clone / ".git" if (clone / ".git").exists() else clone
    listed = subprocess.run(
        ["git", "--git-dir", str(git), "ls-tree", "-r", "--name-only", "HEAD", RUNS],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [line.split("/")[2] for line in listed.splitlines() if line.endswith(f"/{TABLE}")]


def passes(model: str, rows: Sequence[dict[str, Any]], published: dict[str, Any]) -> Passes:
    """The passes that stages leave of one table."""
    n_layers = 1 + max(row["layer"] for row in rows)
    # Their scores have no directions beside them; any will do.
    one = torch.ones(1, 1, dtype=torch.float64)
    candidates = [Candidate(position=row["position"], layer=row["layer"], rows=one, vector=one[0]) for row in rows]
    scores = [{name: (row[key],) for name, key in NAMES.items()} for row in rows]
    rule = SelectionRule()
    stages = Stages(candidates=candidates, rule=rule, n_layers=n_layers, tokens=True, protected=False)
    known: list[dict[str, tuple[float, ...]]] = [{} for _ in rows]

    def table(values: Sequence[dict[str, tuple[float, ...]]]) -> list[CandidateScore]:
        return [score_of(candidate, some) for candidate, some in zip(candidates, values, strict=True)]

    asked, resumed = dict.fromkeys(NAMES, 0), 0.0
    while (stage := stages.next(table(known))) is not None:
        for name in stage.names:
            asked[name] += len(stage.numbers)
            for number in stage.numbers:
                known[number][name] = scores[number][name]
                resumed += (1 - rows[number]["layer"] / n_layers) * (name == "induce")
    every, some = (select(table(values), rule, n_layers).chosen for values in (scores, known))
    return Passes(
        model=model,
        candidates=len(rows),
        eligible=sum(worth_scoring(candidate, rule.layers(n_layers)) for candidate in candidates),
        asked=asked,
        resumed=resumed,
        same=every == some,
        published=some is not None and (some.position, some.layer) == (published["pos"], published["layer"]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    clone = parser.parse_args().clone
    columns = ("table of", "candidates", *NAMES, "left", "additions resumed", "of eligible layers", "choice")
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for model in models(clone):
        found = passes(model, read(clone, f"{RUNS}/{model}/{TABLE}"), read(clone, f"{RUNS}/{model}/{CHOSEN}"))
        choice = "the same" if found.same else "another"
        choice += ", as published" if found.published else ", not the published one"
        counts = " | ".join(str(found.asked[name]) for name in NAMES)
        shares = " | ".join(f"{share:.0%}" for share in (found.whole, found.left, found.of_eligible))
        print(f"| {found.model} | {found.candidates} | {counts} | {shares} | {choice} |")


if __name__ == "__main__":
    main()
