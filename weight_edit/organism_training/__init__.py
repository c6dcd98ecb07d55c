"""How the embedded models were made: training, measurements and cards. No user needs it."""
