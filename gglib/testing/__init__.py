"""For people who test against gglib: fakes, tiny models, contracts."""
