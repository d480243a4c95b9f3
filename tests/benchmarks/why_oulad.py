"""Why generation 10 of OULAD's assessments is better than generation 3: the parts, and whether they sum.

    python tests/benchmarks/why_oulad.py [path of events.csv.gz] [--in FOLDER] [--pairs 3-10 5-15]

A workspace and a walk-forward backfill as `oulad.py` makes them (kept in FOLDER, where one is given), then `flywheel
compare A B --why` as a person runs it. Bars: the parts sum to the difference; the recorded difference, of one seed
each, is within its interval; the causes are those that differ.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import oulad

from flywheel.workspace import Workspace


def built(folder, events):
    """The workspace with its generations; taken as it is where it is there already."""
    root = folder / "oulad"
    if (root / "flywheel.toml").exists():
        return Workspace.open(root)
    ws = oulad.started(root, events.resolve())
    run(ws, "backfill", "--every", "28d")
    return ws


def run(ws, *words):
    """A flywheel command in the workspace; what it printed."""
    flywheel = str(Path(sys.executable).with_name("flywheel"))
    return subprocess.run([flywheel, *words], cwd=ws.root, check=True, capture_output=True, text=True).stdout


def explained(ws, a, b, made):
    """One pair: the parts as shown, and the bars."""
    began = time.perf_counter()
    told = json.loads(run(ws, "compare", str(a), str(b), "--why", "--json"))
    print(f"\ngeneration {a} → {b} in {time.perf_counter() - began:.0f} s")
    for sentence in told["says"]:
        print(f"  {sentence}")
    for part in [*told["parts"], {"name": "in all", "effect": told["total"]}, *told["interactions"]]:
        effect = part["effect"]
        print(f"  {part['name']:28} {effect['value']:+.4f} ({effect['low']:+.4f} to {effect['high']:+.4f})")
    total = told["total"]["value"]
    off = abs(sum(part["effect"]["value"] for part in told["parts"]) - total)
    recorded = made[b]["metrics"][told["metric"]] - made[a]["metrics"][told["metric"]]
    met = [
        machine.ceiling("what the parts miss of the difference", off, 1e-9, "{:.1e}"),
        machine.bar(
            "the recorded difference, above the interval's lower end", recorded, told["total"]["low"], "{:+.4f}"
        ),
        machine.ceiling("the recorded difference, below its upper end", recorded, told["total"]["high"], "{:+.4f}"),
        machine.bar("causes", len(told["parts"]), 3, "{:.0f}"),
    ]
    return all(met)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("events", nargs="?", type=Path, default=oulad.EVENTS)
    parser.add_argument("--in", dest="folder", type=Path)
    parser.add_argument("--pairs", nargs="+", default=["3-10"])
    given = parser.parse_args()
    if not given.events.exists():
        print(f"{given.events} is not here: OULAD's assessments are needed; nothing was measured")
        return True
    print(machine.describe("xgboost-cpu", "numpy"))
    with tempfile.TemporaryDirectory() as name:
        ws = built(given.folder or Path(name), given.events)
        made = {one["generation"]: one for one in json.loads(run(ws, "generations", "--json"))}
        print(f"{len(made)} generations")
        met = [explained(ws, *map(int, pair.split("-")), made) for pair in given.pairs]
        return all(met)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
