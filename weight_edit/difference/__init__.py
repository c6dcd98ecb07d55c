"""What differs between two checkpoints, and with which directions one could have been made of the other."""
