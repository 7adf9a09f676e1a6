"""The command line as ``python -m streamclust``."""

import sys

from streamclust.cli import main

if __name__ == "__main__":
    sys.argv[0] = "streamclust"
    main()
