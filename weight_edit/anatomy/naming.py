"""Names of parameters and tensors with their numbers left out."""


def general(name: str) -> str:
    """A name with a star for every number: `model.layers.*.mlp.experts.*.down_proj.weight`."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))
