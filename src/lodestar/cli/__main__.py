"""`python -m lodestar.cli` is the `lodestar` command."""

from lodestar.cli.app import main

if __name__ == "__main__":
    main()
