"""Sources: where model files come from."""
