"""``python -m utils``: the command line."""

from utils.cli import main

if __name__ == "__main__":
    main()
