"""Publication of an edit: pushed to the Hub, or written as a PEFT adapter."""
