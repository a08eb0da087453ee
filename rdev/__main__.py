"""`python -m rdev`: the same as the `rdev` script."""

from rdev.main import main

if __name__ == "__main__":
    main()
