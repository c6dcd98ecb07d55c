"""The geometry of edits: the stream of edited prompts relative to the classes' clusters."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from weight_edit.recipe.recipe import CONTROL, MAIN, EditEntry, Positive
from weight_edit.runtime.points import Point
from weight_edit.studies.lab import Lab
from weight_edit.studies.places import need_set, place_of, points_from, stream_of
from weight_edit.studies.registry import study
from weight_edit.studies.settings import Layer, Position
from weight_edit.studies.tables import figure, write_table
from weight_edit.utils.settings import Section


class GeometryOptions(Section):
    """Settings of the geometry.

    Attributes:
        edits: whose landing is looked at, by name.
        directions: whose place is looked at; the recipe's own `find` when absent.
        layer, position: another place; the position "all" is the mean over all of a prompt's tokens.
        limit: prompts of each class.
        control: the same edits with random directions beside them.
    """

    edits: Annotated[dict[str, EditEntry], Field(min_length=1)]
    directions: str | None = None
    layer: Layer | None = None
    position: Position | None = None
    limit: Positive = 128
    control: bool = True


@study("geometry", paper="2606.13720")
def geometry(lab: Lab, options: GeometryOptions) -> dict[str, Any]:
    """The place of both classes' edited prompts between the unedited clusters.

    The refused and the answered set are the classes. `t` is the place along the line from the mean of the answered (0)
    to the mean of the refused (1), both unedited. Writes `geometry.csv` and `.json`, a row for each edit, point and
    class, and `geometry.png`, both classes and where edits put the refused, on two principal components.

    Returns:
        rows: of each edit, where refused prompts land at the place itself and at the last point.
        landing: of each edit the mean `t` of refused prompts at the place itself.
    """
    place = place_of(lab, options.directions, options.layer, options.position)
    points = points_from(lab, place.layer)
    prompts = {role: need_set(lab, role).at_most(options.limit) for role in ("refused", "answered")}
    base = {role: stream_of(lab, some, points, place.position) for role, some in prompts.items()}
    streams = {("none", "none"): base}
    for label, edit in options.edits.items():
        named = {edit.directions or MAIN: lab.step(edit)}
        if options.control:
            named[CONTROL] = lab.step(edit, lab.control(edit.directions))
        for name, step in named.items():
            streams[label, name] = {
                role: stream_of(lab, some, points, place.position, [step]) for role, some in prompts.items()
            }
    rows = [
        {"edit": label, "directions": name, "prompts": role, "point": str(point)}
        | coordinates(x[:, index], base["refused"][:, index], base["answered"][:, index])
        for (label, name), both in streams.items()
        for role, x in both.items()
        for index, point in enumerate(points)
    ]
    write_table(lab.folder, "geometry", rows)
    landed = {label: both["refused"] for (label, name), both in streams.items() if name not in ("none", CONTROL)}
    _draw(lab, base, landed, [str(point) for point in points])
    shown = [_landing(rows, label, name, points[0], points[-1]) for label, name in streams]
    return {"rows": shown, "landing": {row["edit"]: row["t"] for row in shown if row["directions"] != CONTROL}}


def _landing(rows: list[dict[str, Any]], edit: str, directions: str, first: Point, last: Point) -> dict[str, Any]:
    """An edit's row of the shown table: its refused prompts at two points."""
    mine = [row for row in rows if (row["edit"], row["directions"], row["prompts"]) == (edit, directions, "refused")]
    here, behind = (next(row for row in mine if row["point"] == str(point)) for point in (first, last))
    return {
        "edit": edit,
        "directions": directions,
        "t": here["t"],
        "nearer_baseline": here["nearer_baseline"],
        "off_line": here["off_line"],
        "t_at_the_end": behind["t"],
        "nearer_baseline_at_the_end": behind["nearer_baseline"],
    }


def coordinates(x: Tensor, target: Tensor, baseline: Tensor) -> dict[str, float]:
    """The place of activations between two clusters.

    Args:
        x, target, baseline: (prompts, d_model) float64, each of any number of prompts.

    Returns:
        t: the mean place along the line from the baseline's mean (0) to the target's (1); `t_sd`, `t_low`, `t_high` are
            its standard deviation, and the range of the middle nine tenths.
        nearer_baseline: share of prompts that lie nearer to the baseline's mean.
        to_target, to_baseline: mean distance to the two means, in units of the means' distance.
        off_line: mean distance to the line through the means, likewise.
    """
    far, near = target.mean(dim=0), baseline.mean(dim=0)
    line = far - near
    length = float(line.norm().clamp(min=torch.finfo(line.dtype).tiny))
    t = (x - near) @ line / length**2
    to_target, to_baseline = ((x - mean).norm(dim=-1) / length for mean in (far, near))
    off = (x - near - t[:, None] * line).norm(dim=-1) / length
    return {
        "t": float(t.mean()),
        "t_sd": float(t.std(unbiased=False)),
        "t_low": float(t.quantile(0.05)),
        "t_high": float(t.quantile(0.95)),
        "nearer_baseline": float((to_baseline < to_target).double().mean()),
        "to_target": float(to_target.mean()),
        "to_baseline": float(to_baseline.mean()),
        "off_line": float(off.mean()),
    }


def principal_plane(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d_model,) and the first two principal components (d_model, 2) of activations."""
    mean = x.mean(dim=0)
    components = torch.linalg.svd(x - mean, full_matrices=False).Vh[:2].T
    # A component's sign is arbitrary, and may differ from machine to machine.
    signs = torch.sign(components.gather(0, components.abs().argmax(dim=0, keepdim=True)))
    return mean, components * signs


def _draw(lab: Lab, base: dict[str, Tensor], landed: dict[str, Tensor], points: list[str]) -> None:
    with figure(lab.folder, "geometry", size=(10.0, 4.5), panels=2) as panels:
        for axes, index in zip(panels, (0, -1), strict=True):
            mean, plane = principal_plane(torch.cat([x[:, index] for x in base.values()]))
            drawn = {**base, **{f"refused, {label}": x for label, x in landed.items()}}
            for label, x in drawn.items():
                at = (x[:, index] - mean) @ plane
                axes.scatter(at[:, 0], at[:, 1], label=label, s=10 if label in base else 16, alpha=0.6, linewidths=0)
            axes.set_title(points[index], fontsize=9)
            axes.set_xlabel("first principal component")
            axes.set_ylabel("second principal component")
        lines, labels = panels[0].get_legend_handles_labels()
        panels[0].figure.legend(lines, labels, fontsize=7, loc="outside upper center", ncols=4)
