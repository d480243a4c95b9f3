"""The `flywheel` command: a person's "when". The commands themselves are in `flows/commands/`.

Every library is imported inside the command that needs it, so that `--help` answers at once.
"""

import errno
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands import generations, knowing, running, wheel
from flows.commands.terminal import Warnings, complain

app = typer.Typer(
    help="Turn the interactions of a product into better models, through a gate, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
EPILOG = "Exit codes: 0 done or skipped, 1 error, 2 usage, 3 blocked, 75 busy, 130 interrupted."

PANELS = {
    "The wheel": wheel.commands,
    "Its generations": generations.commands,
    "Does it turn?": knowing.commands,
    "By itself": running.commands,
}
STOPPED = (130, 143)  # Ctrl-C, which typer turns into its exit code, and SIGTERM


@app.callback(epilog=EPILOG)
def root(
    workspace: Annotated[Path, typer.Option("--workspace", "-C", help="The workspace's folder.")] = Path(),
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
) -> None:
    """Turn the interactions of a product into better models, through a gate, and prove it."""
    os.environ["FLYWHEEL_WORKSPACE"] = str(workspace.resolve())


for panel, part in PANELS.items():
    for command in part.registered_commands:
        command.rich_help_panel = panel
        app.registered_commands.append(command)


def main() -> None:
    """Run the command; an error is told in a few lines, with its exit code, and no traceback without --debug."""
    from flywheel.errors import FlywheelError

    debug = "--debug" in sys.argv[1:]
    gc.set_threshold(50_000, 20, 20)  # the libraries make objects by the hundred thousand as they are imported
    signal.signal(signal.SIGTERM, _stop)
    logging.getLogger("flywheel").addHandler(Warnings(logging.WARNING))
    try:
        app()
    except FlywheelError as error:
        if debug:
            raise
        complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        where = f"\n  where: {error.filename}" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        next = "free some space, then run the same command again" if full else "flywheel --debug status"
        complain(f"{error.strerror or error}{where}\n  next:  {next}")
        sys.exit(1)
    except SystemExit as ended:
        if ended.code in STOPPED:
            complain("stopped; run the same command again to resume")
        raise


def _stop(number: int, _frame: object) -> None:
    """End as an interrupt does: what is open is closed, and nothing is begun any more."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
