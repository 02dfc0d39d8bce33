"""`python -m oscar_steps.matrix` checks the profiles and prints the cells."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from oscar_steps.errors import ConfigError
from oscar_steps.matrix.cells import default_profiles, load_matrix


def main() -> int:
    """Print the matrix."""
    parser = argparse.ArgumentParser(
        prog="python -m oscar_steps.matrix", description="Check the profiles and list the cells of the matrix."
    )
    parser.add_argument("profiles", nargs="?", type=Path, default=default_profiles(), help="the folder of profiles")
    try:
        matrix = load_matrix(parser.parse_args().profiles)
    except ConfigError as error:
        print(error.explain(), file=sys.stderr)
        return 64
    for cell in matrix.cells:
        when = ", ".join(cell.labels)
        print(f"{cell.name}: image {cell.image}, cluster {cell.cluster}, answers {cell.answers} ({when or 'by hand'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
