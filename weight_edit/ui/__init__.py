"""The local page: the whole job as a row of steps, each of which starts a command of the command line."""
