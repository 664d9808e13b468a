"""`python -m mi_core`: the command line."""

import sys

from mi_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
