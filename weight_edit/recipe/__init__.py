"""The recipe, one YAML file: its schema, and the bundled recipes."""
