"""A loaded model: hooks, activations, batches, forward passes and greedy generation."""
