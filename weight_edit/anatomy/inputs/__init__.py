"""Inputs for a recorded forward pass: tokens, images and sound."""
