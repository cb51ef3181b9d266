"""``python -m venvflow``: the same as the command ``venvflow``."""

import sys

from venvflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
