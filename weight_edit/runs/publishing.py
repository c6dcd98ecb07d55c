"""The end of a run: its model is pushed where the recipe says, if whoever runs it says so too."""

from pathlib import Path
from typing import Any

from weight_edit.errors import UsageError, VerificationError, plain
from weight_edit.hub.destination import Destination
from weight_edit.publish.push import push
from weight_edit.publish.upload import check_destination
from weight_edit.recipe.recipe import Recipe
from weight_edit.utils.progress import announce


def check_push(recipe: Recipe, token: str | None) -> None:
    """Refuse a push that cannot end well, before the hours of work in front of it.

    Raises:
        UsageError: the recipe does not say where to, or as `check_destination`.
    """
    if recipe.push is None:
        raise UsageError(
            "the recipe does not say where its model is pushed; add a section, such as "
            "`overrides: push={repo: owner/name, private: true}`, or leave `push` out",
            option=("push", "overrides"),
        )
    check_destination(recipe.push.destination, token)
    visibility = "private" if recipe.push.private else "as public as the repository is"
    announce(f"the edited model will be pushed to {recipe.push.destination}, {visibility}")


def push_model(recipe: Recipe, model: Path, token: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """The record of the push of a run's model.

    Raises:
        UsageError, VerificationError: as `push`, and where the model is.
    """
    assert recipe.push is not None
    to = recipe.push.destination
    try:
        pushed = push(
            model,
            to.repo_id,
            base=recipe.model,
            private=to.private,
            branch=to.branch,
            create_pr=to.create_pr,
            system=recipe.system,
            template=recipe.template,
            template_args=recipe.template_args,
            device=recipe.device,
            token=token,
            trust_remote_code=trust_remote_code,
        )
    except (UsageError, VerificationError) as error:
        error.args = (plain(f"{error}; the run is done, and its model is {model}"),)
        raise
    document = pushed.to_dict()
    del document["verification"]
    return {"pushed": True, **document}


def not_pushed(to: Destination) -> dict[str, Any]:
    """The record of a push that the recipe asks for, and whoever ran it did not."""
    return {
        "pushed": False,
        "repo_id": to.repo_id,
        "private": to.private,
        "branch": to.branch,
        "create_pr": to.create_pr,
    }
