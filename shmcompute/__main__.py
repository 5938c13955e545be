"""``python -m shmcompute demo | bench | doctor | info | ls | gc``."""

import sys

from shmcompute.cli import main

if __name__ == "__main__":
    sys.exit(main())
