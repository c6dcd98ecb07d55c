"""What tests share: small models, checkpoints, a Hub on this machine, hostile inputs."""
