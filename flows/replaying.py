"""Quarantined rows, tried again."""

from datetime import datetime

import pyarrow as pa

from flows.lock import locked
from flywheel.fingerprint import atomic_write
from flywheel.sources.files import FileSource
from flywheel.sources.spool import Spool
from flywheel.workspace import Workspace


def replay(ws: Workspace, window: str, held: pa.Table, now: datetime) -> str:
    """Put quarantined rows into the inbox as a delivery of their own; what was done, in words.

    Raises:
        BusyError: another process holds the workspace.
    """
    path = ws.inbox / "replay" / f"{window}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{row}\n" for row in held.column("raw").to_pylist())
    atomic_write(path, lambda at: at.write_text(lines, encoding="utf-8"))
    with locked(ws.cache, "replay"):  # taking clears away what a killed take left
        taken = Spool(ws.inbox, ws.config.windows.grid).take(FileSource(str(path), ws.root), ws.config, now=now)
    rows, refused = (sum(getattr(one, field) for one in taken) for field in ("rows", "rejected"))
    if not taken:
        return f"window {window}: its {held.num_rows:,} quarantined rows are in the inbox already"
    return (
        f"window {window}: {rows - refused:,} of {rows:,} quarantined rows are back in the inbox, "
        f"{refused:,} were refused again; they join the next window to close as late rows"
    )
