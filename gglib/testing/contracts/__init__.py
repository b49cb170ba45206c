"""One contract per port: subclass it, say how your adapter is opened, run pytest."""
