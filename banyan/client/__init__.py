"""The only way in for the worker, the command line and the web pages: HTTP to a Banyan server."""
