"""The gateway's routes, described: as an OpenAPI document for programs, and as a page to read."""
