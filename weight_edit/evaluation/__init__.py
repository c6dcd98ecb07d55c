"""The effects of an edit: refusal, over-refusal, right answers, divergence and loss."""
