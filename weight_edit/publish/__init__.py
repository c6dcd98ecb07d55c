"""An edit passed on: pushed to the Hub, or written as a PEFT adapter."""
