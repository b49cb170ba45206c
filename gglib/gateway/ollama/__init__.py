"""Ollama's HTTP API before our models: translated, for programs that speak nothing else."""
