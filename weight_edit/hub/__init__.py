"""Where a model's files are: names resolved, the Hub called, headers and shards fetched."""
