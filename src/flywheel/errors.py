"""Every error that a person may see: what happened, where and why, and the next command.

FlywheelError                 exit 1
├── ConfigError               exit 2   flywheel.toml or an argument cannot be read as meant
├── SourceError                        a source cannot be read, or is not what the contract says
├── DataError                          rows that cannot be trained on: one class, NaN, too few
├── IntegrityError                     bytes are not those that were written
├── RegistryError                      MLflow cannot answer, or answers what cannot be true
├── BlockedError              exit 3   a suite or the gate stands in the way; nothing moved
└── BusyError                 exit 75  another process holds the workspace
"""

from functools import partial
from typing import ClassVar


class FlywheelError(Exception):
    """What happened, optionally where and why, and the command that helps.

    >>> print(SourceError("events.csv has no column 'ts'", where="events.csv", why="it has: time, user",
    ...                   next="flywheel init . --from events.csv --timestamp time"))
    events.csv has no column 'ts'
      where: events.csv
      why:   it has: time, user
      next:  flywheel init . --from events.csv --timestamp time
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", next: str = "") -> None:
        self.what, self.where, self.why, self.next = what, where, why, next
        lines = [what]
        lines += [f"  where: {where}"] if where else []
        lines += [f"  why:   {why}"] if why else []
        lines += [f"  next:  {next}"] if next else []
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, tuple[()]]:
        """Whole, wherever it was raised."""
        return partial(type(self), self.what, where=self.where, why=self.why, next=self.next), ()


class ConfigError(FlywheelError):
    """flywheel.toml, or an argument, cannot be read as meant."""

    exit_code = 2


class SourceError(FlywheelError):
    """A source cannot be read, or is not what the contract says."""


class DataError(FlywheelError):
    """Rows that cannot be trained on or examined."""


class IntegrityError(FlywheelError):
    """Bytes on disk are not those that were written."""


class RegistryError(FlywheelError):
    """The model registry cannot answer, or answers what cannot be true."""


class BlockedError(FlywheelError):
    """A suite or the gate stands in the way; nothing moved."""

    exit_code = 3


class BusyError(FlywheelError):
    """Another process holds the workspace."""

    exit_code = 75
