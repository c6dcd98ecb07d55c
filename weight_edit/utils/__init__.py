"""Utilities for every room: names, settings, registries, progress, strict JSON and YAML."""
