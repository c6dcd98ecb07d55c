"""A chat with a model, with its base or with an edit under trial beside it: the session, and its face in a terminal."""
