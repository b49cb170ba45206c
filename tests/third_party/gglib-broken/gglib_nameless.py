"""Has lost its factory."""
