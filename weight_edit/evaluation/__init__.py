"""What an edit changed: refusal and over-refusal, right answers, divergence and loss, with intervals."""
