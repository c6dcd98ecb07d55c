"""Publication of an edit: pushed to the Hub."""
