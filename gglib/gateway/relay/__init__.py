"""The spliced data path: bytes in, bytes out, below ASGI."""
