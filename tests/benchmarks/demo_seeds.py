"""`flywheel demo` for ten seeds: does the wheel win, and does it speed up, in at least nine of them?

    python tests/benchmarks/demo_seeds.py [--seeds 1 2 3 4 5 6 7 8 9 10] [--turns 20]

Each seed is one real demo, read from the table that it prints: real flows, ranker, inbox, gate and registry.

It wins if it has a tenth more users at the end than either other world, a tenth more rows in the last four weeks, and
in these a share watched that is at least one point higher. It speeds up if users and rows a week grow faster in the
last third of the weeks than in the first, and if that gain in speed is larger than in either other world. Growth is
the slope of the logarithm, in per cent a week: a world that doubles again and again in the same time does not speed up.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import bar, describe

RECENT = 4
WORLDS = ("wheel", "frozen", "random")
FIGURES = ("users", "rows", "watched")
LINE = re.compile(r"^\s*(\d+)" + r"\s+([\d,]+)\s+([\d,]+)\s+([\d.]+)%" * len(WORLDS) + r"\s*$")


def live(seed, turns):
    """The table of one demo: world → figure → a value a week."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "flows.cli", "demo", str(Path(folder) / "demo")]
        command += ["--turns", str(turns), "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the demo of seed {seed} failed:\n{done.stderr[-2000:]}")
    return read(done.stdout)


def read(printed):
    """The figures that a demo printed.

    >>> read("  1   300  2,202  21.5%   300  2,202  21.5%   298  2,100  21.1% ")["random"]["rows"]
    array([2100.])
    """
    lines = [match.groups()[1:] for line in printed.splitlines() if (match := LINE.match(line))]
    values = np.array([[float(value.replace(",", "")) for value in line] for line in lines])
    columns = values.reshape(len(lines), len(WORLDS), len(FIGURES))
    return {w: {f: columns[:, i, j] for j, f in enumerate(FIGURES)} for i, w in enumerate(WORLDS)}


def growth(values):
    """Growth in per cent a week, over the first, the middle and the last third of the weeks."""
    third = round(len(values) / 3)
    spans = (values[:third], values[third:-third], values[-third:])
    return [100 * np.polyfit(np.arange(len(span)), np.log(span), 1)[0] for span in spans]


def recent(world):
    """Users at the end; rows a week and the share of them watched in the last weeks."""
    rows = world["rows"][-RECENT:]
    return world["users"][-1], rows.mean(), (world["watched"][-RECENT:] * rows).sum() / rows.sum()


def wins(worlds):
    """Whether the wheel is clearly ahead of both other worlds at the end."""
    users, rows, watched = recent(worlds["wheel"])
    others = [recent(worlds[name]) for name in WORLDS[1:]]
    return all(users >= 1.1 * u and rows >= 1.1 * r and watched >= w + 1 for u, r, w in others)


def speeds_up(worlds):
    """Whether the wheel's growth is faster at the end than at the beginning, and gains more than the others' does."""

    def gain(world, figure):
        slow, _, fast = growth(world[figure])
        return fast - slow

    return all(
        gain(worlds["wheel"], figure) > max(0, *(gain(worlds[name], figure) for name in WORLDS[1:]))
        for figure in ("users", "rows")
    )


def show(seed, worlds, seconds):
    """One line a world: its ends, and its growth by thirds with the weeks in which it doubles."""
    for name in WORLDS:
        users, rows, watched = recent(worlds[name])
        speeds = growth(worlds[name]["users"])
        doubles = " ".join(f"{100 * np.log(2) / speed:4.0f}" if speed > 0.5 else "   —" for speed in speeds)
        faster = " ".join(f"{speed:+5.1f}" for speed in speeds)
        rows_faster = " ".join(f"{speed:+5.1f}" for speed in growth(worlds[name]["rows"]))
        print(
            f"{seed:4}  {name:6}  {users:6,.0f} users {rows:7,.0f} rows a week {watched:5.1f} % watched   "
            f"users {faster} % a week, doubling in {doubles} weeks   rows {rows_faster} %"
        )
    won, faster = "won" if wins(worlds) else "NOT WON", "sped up" if speeds_up(worlds) else "DID NOT SPEED UP"
    print(f"      {won}, {faster}, {seconds:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    parser.add_argument("--turns", type=int, default=20)
    given = parser.parse_args()
    print(describe("xgboost-cpu", "numpy", "prefect", "mlflow"))
    print(f"{given.turns} weeks; rows and share watched are those of the last {RECENT} weeks\n", flush=True)
    won, faster = [], []
    for seed in given.seeds:
        began = time.perf_counter()
        worlds = live(seed, given.turns)
        show(seed, worlds, time.perf_counter() - began)
        won.append(wins(worlds))
        faster.append(speeds_up(worlds))
    print()
    least = 0.9 * len(given.seeds)
    met = [
        bar("seeds that the wheel wins", sum(won), least, "{:.0f}"),
        bar("seeds in which it speeds up", sum(faster), least, "{:.0f}"),
        bar("seeds with both", sum(map(all, zip(won, faster, strict=True))), least, "{:.0f}"),
    ]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
