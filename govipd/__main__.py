"""`python -m govipd` runs the daemon."""

from govipd.cli import run

run()
