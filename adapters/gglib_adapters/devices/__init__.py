"""What memory this machine has for models."""
