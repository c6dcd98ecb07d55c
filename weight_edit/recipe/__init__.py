"""The recipe, one YAML file: its schema, and the recipes that come with the package."""
