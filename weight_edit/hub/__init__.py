"""The files of models: names resolved, the Hub called, headers and shards fetched."""
