"""An edit in kilobytes: packed from an edited checkpoint, applied to a base, and undone."""
