"""Runs a command that ends with whoever holds this process's standard input, however that dies.

    python -m flows.leash COMMAND ARGUMENT…

When the input ends the command is asked to end, and what it left behind in its process group is killed.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE = 25.0  # s: a server drains for 11, a turn stops within 10


def main() -> None:
    """Run the command; end as it does, and leave nothing of it behind."""
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_wait_for_end, args=(command,), daemon=True).start()
    code = command.wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(ProcessLookupError):
        os.killpg(0, signal.SIGTERM)  # children of the command that outlived it; this process leads their group
    os._exit(code if code >= 0 else 128 - code)


def _wait_for_end(command: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 1):
        pass
    command.terminate()
    try:
        command.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
