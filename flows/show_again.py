"""What a person sees of a decision made again, as rich renderables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from flows.deciding_again import Again
from flows.show import COLOURS, named, table
from flywheel.records import Finding


def again(found: Again) -> RenderableType:
    """The old verdict beside the new one, finding by finding."""
    exam = " to ".join(found.exam_windows)
    late = f", {found.late:,} of them came late" if found.late else ""
    facts: list[tuple[str, str | Text]] = [
        ("exam", f"windows {exam}, against {named(found.examined_against)}"),
        ("rows", f"{found.rows_then:,} then, {found.rows_now:,} now{late}"),
        ("then", Text(f"{found.then.decision}: {found.then.reason}", style=COLOURS[found.then.decision])),
        ("now", Text(f"{found.now.decision}: {found.now.reason}", style=COLOURS[found.now.decision])),
    ]
    before, after = ({f.name: f for f in said.findings} for said in (found.then, found.now))
    rows = [(name, _status(before.get(name)), *_told(after.get(name))) for name in {**after, **before}]
    return Group(Text(found.says), table("", "", rows=facts), Text(), table("finding", "then", "now", "", rows=rows))


def _status(finding: Finding | None) -> str:
    return finding.status if finding else "—"


def _told(finding: Finding | None) -> tuple[str, str]:
    return (finding.status, finding.detail) if finding else ("—", "")
