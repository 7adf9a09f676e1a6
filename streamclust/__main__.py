"""The command line as ``python -m streamclust``."""

from streamclust.cli import main

if __name__ == "__main__":
    main()
