"""The command line: ``python -m shmcompute``."""

from shmcompute.cli.parser import main

__all__ = ["main"]
