"""The command line: one file a noun; talks to a server through `banyan.client`."""
