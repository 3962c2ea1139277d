"""`banyan worker --standalone FILE`: a file of tasks on this machine, with no server."""
