"""How the parameters of a model in memory are called and laid out in its files."""
