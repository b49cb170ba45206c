"""Models from a hub: what to fetch, fetching it, and making a model of it."""
