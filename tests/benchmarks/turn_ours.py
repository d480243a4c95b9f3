"""One turn of ours, as `flywheel turn` runs it, with the seconds and CPU seconds of matrix and fit; see turn.py."""

import contextlib
import gc
import json
import sys
import time
from collections.abc import Iterator

gc.disable()

from pathlib import Path  # noqa: E402

from flows import run  # noqa: E402
from flywheel.config import read_time  # noqa: E402
from flywheel.workspace import Workspace  # noqa: E402


def main() -> None:
    """Turn once, and print the seconds of the fit as JSON."""
    ws = Workspace.open(Path(sys.argv[1]))
    spent = {"fit": 0.0, "fit_cpu": 0.0}

    @contextlib.contextmanager
    def timed() -> Iterator[object]:
        from flywheel.learn import train

        fit = train.fit

        def clocked(*args: object, **kwargs: object) -> object:
            began, cpu = time.perf_counter(), time.process_time()
            try:
                return fit(*args, **kwargs)  # type: ignore[arg-type]
            finally:
                spent["fit"] += time.perf_counter() - began
                spent["fit_cpu"] += time.process_time() - cpu

        train.fit = clocked  # type: ignore[assignment]
        yield lambda *_: None

    turned = run.turn(ws, read_time(sys.argv[2]), promote=True, wait=False, on_progress=timed)  # type: ignore[arg-type]
    if turned.generation == 0 or turned.status == "skipped":
        raise SystemExit(f"the turn made no generation: {turned}")
    print(json.dumps({**spent, "closed": turned.closed}))


if __name__ == "__main__":
    main()
