"""Benchmarks of EleutherAI's lm-evaluation-harness (lm-eval), and our figures in the shape of its results."""
