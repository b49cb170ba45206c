"""``gglib top``: a running gateway, watched."""
