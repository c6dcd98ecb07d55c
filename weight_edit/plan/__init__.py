"""Edit plans: each weight's linear map, as hooks in memory and as weights on disk."""
