"""How long `flywheel --help` takes, against Python alone: best of so many starts each.

    .venv/bin/python tests/benchmarks/startup.py

The bar is 0.5 s.
"""

import subprocess
import sys
import time
from pathlib import Path

STARTS = 10
ROOT = Path(__file__).resolve().parents[2]


def best(command: list[str]) -> float:
    """The shortest of `STARTS` runs, in seconds."""
    taken = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - began)
    return min(taken)


if __name__ == "__main__":
    for name, words in {"python alone": ["-c", "pass"], "flywheel --help": ["-m", "flows.cli", "--help"]}.items():
        print(f"{name:18}{best([sys.executable, *words]):.2f} s")
