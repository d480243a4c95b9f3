"""Our figures beside the peers' on the same work in the same run, as a table and a picture, and what machine it was.

    python tests/benchmarks [--quick] [NAME ...]

NAME is one of the scripts that have peers: features, ranker, serving, ingest, training, turn. The peers that are no
dependency of ours (DuckDB, polars) are installed in an environment of their own, `.bench/venv`, which sees the one
that runs this; Feast, which needs another pandas than ours, in one that sees nothing else. Table, picture and all that
was printed are left in `.bench`. An hour in all; a few minutes with `--quick`, whose sizes are too small for the bars
to be judged by.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib import ticker

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PLACE = ROOT / ".bench"
RUNS = {  # the arguments of each, and with --quick
    "features": ([], ["200000"]),
    "ranker": ([], []),
    "serving": (["latency", "most"], ["latency", "most", "--quick"]),
    "ingest": ([], ["--quick"]),
    "training": ([], ["500000", "10"]),
    "turn": ([], ["--history", "1", "--runs", "1", "--rounds", "10"]),
}
OURS, THEIRS = "#0b7a75", "#b8b8b0"


def environment():
    """The Python of an environment that has the peers, and everything that this one has."""
    python = PLACE / "venv" / "bin" / "python"
    if not python.exists():
        print("installing the peers in .bench/venv", flush=True)
        venv.create(PLACE / "venv", with_pip=True)
        seen = python.parent.parent / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "parent.pth"
        seen.write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
        subprocess.run([python, "-m", "pip", "install", "-q", *groups["bench"]], check=True)
        venv.create(PLACE / "feast", with_pip=True)
        alone = PLACE / "feast" / "bin" / "python"
        subprocess.run([alone, "-m", "pip", "install", "-q", *groups["bench-feast"]], check=True)
    return python


def run(python, name, arguments, figures):
    """Run a script, showing and keeping what it prints; whether it ended well."""
    print(f"\n== {name}", flush=True)
    env = os.environ | {"BENCH_FIGURES": str(figures)}
    with (PLACE / f"{name}.txt").open("w") as kept:
        script = subprocess.Popen([python, HERE / f"{name}.py", *arguments], stdout=subprocess.PIPE, text=True, env=env)
        for line in script.stdout:
            print(line, end="", flush=True)
            kept.write(line)
    return script.wait() == 0


def table(told):
    """All figures as Markdown: ours, each peer's, and how many times as good ours is."""
    lines = [f"On {next(one['machine'] for one in told if 'machine' in one)}.", ""]
    lines += ["| what | unit | ours | the other | of it |", "|---|---|---:|---:|---:|"]
    for one in (one for one in told if "beside" in one):
        (_, ours), *others = one["figures"].items()
        for name, figure in others:
            ratio = better(one, figure)
            lines.append(f"| {one['beside']} | {one['unit']} | {ours:,.4g} | {name}: {figure:,.4g} | {ratio:.2f} × |")
    lines += ["", "| bar | measured | met |", "|---|---:|---|"]
    lines += [
        f"| {one['bar']}: {one['bound']} | {one['value']} | {'yes' if one['met'] else 'no'} |"
        for one in told
        if "bar" in one
    ]
    return "\n".join(lines) + "\n"


def better(one, figure):
    """How many times as good as a peer's ours is: of rates more is better, of everything else less."""
    ours = next(iter(one["figures"].values()))
    return ours / figure if one["unit"] == "/s" else figure / ours


def picture(told, path):
    """Bars of each peer against ours, which is 1; to the right of it is where we are better."""
    shown = [
        (f"{one['beside']}\n{name}", better(one, figure))
        for one in told
        if "beside" in one
        for name, figure in list(one["figures"].items())[1:]
    ]
    fig, axes = plt.subplots(figsize=(9, 0.5 * len(shown) + 1.2), layout="constrained")
    names, ratios = zip(*reversed(shown), strict=True)
    axes.barh(
        names,
        [ratio - 1 for ratio in ratios],
        left=1,
        color=[OURS if ratio >= 1 else THEIRS for ratio in ratios],
        height=0.6,
    )
    for y, ratio in enumerate(ratios):
        axes.annotate(f" {ratio:.2f} × ", (ratio, y), va="center", ha="left" if ratio >= 1 else "right", fontsize=8)
    axes.axvline(1, color="#404040", lw=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel("times as good as the other (1 is level)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)
    fig.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)}; all without one")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(RUNS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    PLACE.mkdir(exist_ok=True)
    figures = PLACE / "figures.jsonl"
    figures.unlink(missing_ok=True)
    python = environment()
    met = [run(python, name, RUNS[name][asked.quick], figures) for name in asked.names or RUNS]
    told = [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]
    (PLACE / "benchmarks.md").write_text(table(told), encoding="utf-8")
    picture(told, PLACE / "benchmarks.png")
    print("\n" + table(told) + "\nalso in .bench/benchmarks.md, and drawn in .bench/benchmarks.png")
    return all(met)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
