"""The HTTP gateway: a thin shell."""
