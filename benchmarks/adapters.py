"""Rows in and out of every adapter, against its client library's own plain pandas way.

Each part is a script of its own, which can be run alone.
"""

import subprocess
import sys
from pathlib import Path

PARTS = ("adapters_objects.py",)


def main() -> None:
    """Run every part with the arguments given."""
    for part in PARTS:
        command = [sys.executable, str(Path(__file__).with_name(part)), *sys.argv[1:]]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
