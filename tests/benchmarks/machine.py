"""What every benchmark prints: the machine it ran on, our figure beside the peers', and whether a bar is met.

Where `BENCH_FIGURES` names a file, all of it is added there too, a JSON object a line.
"""

import json
import os
import platform
from importlib.metadata import version


def describe(*packages):
    """One line: processor, cores, memory, load, Python and the packages that matter."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = os.getloadavg()[0]
    told = (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, load {load:.1f} before; "
        f"Python {platform.python_version()}, {versions}"
    )
    _keep(machine=told)
    return told


def beside(what, unit, figures):
    """Keep our figure and the peers' on the same work in the same run; `figures` begins with ours."""
    _keep(beside=what, unit=unit, figures=figures)


def bar(what, value, least, form="{:.2f} ×"):
    """Print whether a number that must be at least `least` is."""
    return _say(value >= least, what, form.format(value), f"≥ {least:g}")


def ceiling(what, value, most, form="{:.2f} ×"):
    """Print whether a number that may be at most `most` is."""
    return _say(value <= most, what, form.format(value), f"≤ {most:g}")


def _say(met, what, value, bound):
    print(f"{'met    ' if met else 'NOT MET'} {value} {what}, bar {bound}")
    _keep(bar=what, value=value, bound=bound, met=bool(met))
    return bool(met)


def _keep(**told):
    if path := os.environ.get("BENCH_FIGURES"):
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(json.dumps(told) + "\n")
