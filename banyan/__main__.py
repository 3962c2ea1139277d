"""`python -m banyan` is `banyan`."""

from banyan.cli.main import main

main()
