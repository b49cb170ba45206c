"""What gglib shows itself with, without a download."""
