"""The making of the embedded models: training, measurements and cards. No user needs it."""
