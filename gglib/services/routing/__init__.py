"""Which request gets which server, and when."""
