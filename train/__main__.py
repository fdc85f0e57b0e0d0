"""`python -m papyrax.train` is the command `papyrax`."""

import sys

from papyrax.train.cli import main

if __name__ == "__main__":
    sys.exit(main())
