"""gglib runs language-model servers for people."""

__version__ = "0.1.0"
