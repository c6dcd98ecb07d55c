"""What every room needs and no room owns: names, settings, registries, progress, strict JSON and YAML."""
