"""`python -m rdev`: the same as the `rdev` script."""

import sys

from rdev.main import main

if __name__ == "__main__":
    sys.exit(main())
