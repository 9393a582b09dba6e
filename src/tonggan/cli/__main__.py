"""`python -m tonggan.cli`: the `tonggan` command where it is not on the path."""

from tonggan.cli import main

main()
