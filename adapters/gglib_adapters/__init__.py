"""Adapters that come with gglib; they register as anybody's do, by entry points."""
