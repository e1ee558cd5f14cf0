"""``python -m lightning_leep``, the same as ``lightning-leep``."""

import sys

from lightning_leep.cli import main

if __name__ == "__main__":
    sys.exit(main())
