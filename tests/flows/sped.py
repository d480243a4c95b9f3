"""The `flywheel` command by another clock: `sped.py CLOCK …`, where the file CLOCK holds nanoseconds since 1970 UTC."""

import sys
import time
from pathlib import Path


def main() -> None:
    clock = Path(sys.argv.pop(1))
    time.time_ns = lambda: int(clock.read_text())  # what `serve` dates answers by
    from flows.cli import main as flywheel

    flywheel()


if __name__ == "__main__":
    main()
