"""The floors that the rooms of the package stand on."""

FLOORS = (
    "redaction version",
    "errors",
    "utils",
    "tables",
    "edits checkpoint organism",
    "hub anatomy",
    "prompts",
    "runtime",
    "plan evaluation",
    "directions proofs recipe",
    "baking chat costs difference search studies organism_training",
    "verification",
    "adapters packs",
    "publish report",
    "inspection runs",
    "ui",
    "cli",
    "__init__ __main__",
)
"""From the ground up; ARCHITECTURE.md says what each room is for."""
