"""What a find, a search, a bake, a verification and an evaluation of a model cost, before any of them is run."""
