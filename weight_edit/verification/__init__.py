"""What an edited checkpoint is held to: integrity, completeness in weights and stream, faithfulness."""
