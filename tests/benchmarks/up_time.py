"""How long `flywheel up` takes until all is healthy, and how long to stop: on a fresh home, then on one that was used.

    .venv/bin/python tests/benchmarks/up_time.py [--quick]

The workspace serves, so all four parts start. The bar is 60 s on a fresh home. --quick leaves the second start out.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.machine import ceiling, describe
from tests.flows import live

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 300  # s


def once(root: Path) -> tuple[float, float, str]:
    """Start and stop; seconds until all is healthy, seconds to stop, and what was said."""
    free = ["--port", "0", "--prefect-port", "0", "--mlflow-port", "0"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    kept |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
    began, said = time.perf_counter(), []
    command = [sys.executable, "-m", "flows.cli", "-C", str(root), "up", *free]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=kept) as process:
        for line in process.stdout:
            said.append(line)
            if "all healthy" in line or time.perf_counter() - began > LONGEST:
                break
        healthy = time.perf_counter() - began
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    return healthy, time.perf_counter() - began - healthy, "".join(said)


if __name__ == "__main__":
    print(describe("prefect", "mlflow", "uvicorn"))
    with tempfile.TemporaryDirectory() as folder:
        ws = live.build(Path(folder) / "shop")
        for home in ("fresh",) if "--quick" in sys.argv else ("fresh", "used"):
            healthy, stopped, said = once(ws.root)
            parts = ", ".join(f"{name} {after} s" for name, after in re.findall(r"(\w+) +healthy after (\d+) s", said))
            print(f"{home} home: {parts}; stopped in {stopped:.1f} s")
            if home == "fresh":
                ceiling("from the command to all healthy on a fresh home", healthy, 60, "{:.1f} s")
            else:
                print(f"        {healthy:.1f} s from the command to all healthy on a used home")
