"""Banyan: a distributed job queue with a hypermedia REST API."""

__version__ = "0.1.0"
