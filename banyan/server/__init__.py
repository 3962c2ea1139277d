"""The server: an Eve application over MongoDB, its verbs, its store and its upkeep."""
