"""An edit planned over a model: which linear map goes to which weight, as hooks in memory and as weights on disk."""
