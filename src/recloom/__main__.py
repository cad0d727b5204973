"""`python -m recloom` is the command `recloom`."""

from recloom.cli import main

main()
