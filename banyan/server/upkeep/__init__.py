"""Periodic duties that any number of server processes share."""
