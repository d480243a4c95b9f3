"""A workspace's own columns: each public function of its `features.py`, named after its column.

A function takes the rows of a window as a pandas DataFrame, without anything known only afterwards, and returns
one number per row. It must be row-wise: what it says of a row may not depend on which other rows are there.
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pandas as pd

from flywheel.errors import ConfigError, DataError

FILE = "features.py"


@dataclass(frozen=True)
class Custom:
    """The functions of a features.py, the hash of its text, and the text."""

    functions: dict[str, Callable[[pd.DataFrame], object]]
    fingerprint: str
    text: str = ""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Between processes travels the text."""
        return from_text, (self.text,)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns they make, in the order of the file."""
        return tuple(self.functions)

    def matrix(self, rows: pd.DataFrame) -> npt.NDArray[np.float32]:
        """The columns of `rows`, float32 of shape (rows, functions).

        Raises:
            DataError: a function fails, returns other than a number per row, or is not row-wise.
        """
        out = self.values(rows)
        some = rows.iloc[::2]
        for i, (name, function) in enumerate(self.functions.items()):
            if len(some) and not np.array_equal(_column(name, function, some), out[::2, i], equal_nan=True):
                raise DataError(
                    f"the feature {name} is not row-wise",
                    where=FILE,
                    why="given every other row only, it said something else of the same rows",
                    next=f"make {name} depend on its own row alone; what depends on others is a counter",
                )
        return out

    def values(self, rows: pd.DataFrame) -> npt.NDArray[np.float32]:
        """The same without looking whether they are row-wise, for a few rows that somebody waits for."""
        out = np.empty((len(rows), len(self.functions)), dtype=np.float32)
        for i, (name, function) in enumerate(self.functions.items()):
            out[:, i] = _column(name, function, rows)
        return out


def load(root: Path) -> Custom:
    """Read `root/features.py`; without the file, no columns.

    Raises:
        ConfigError: the file cannot be imported.
    """
    path = root / FILE
    return from_text(path.read_text(encoding="utf-8"), str(path)) if path.exists() else from_text("")


def from_text(text: str, where: str = FILE) -> Custom:
    """The functions of a features.py by its text; of an empty one, none.

    Raises:
        ConfigError: it cannot be run.
    """
    if not text:
        return Custom({}, "")
    module = _run(text, where)
    functions: dict[str, Callable[[pd.DataFrame], object]] = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    return Custom(functions, hashlib.sha256(text.encode()).hexdigest()[:12], text)


def _run(text: str, where: str) -> ModuleType:
    module = ModuleType("flywheel_workspace_features")
    try:
        exec(compile(text, where, "exec"), vars(module))
    except Exception as error:  # noqa: BLE001  it is somebody's own code: it may raise anything
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{FILE} cannot be run", where=where, why=why) from None
    return module


def _column(name: str, function: Callable[[pd.DataFrame], object], rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    try:
        values = np.asarray(function(rows), dtype=np.float32)
    except Exception as error:  # noqa: BLE001  it is somebody's own code: it may raise anything
        raise DataError(f"the feature {name} failed", where=FILE, why=f"{type(error).__name__}: {error}") from None
    if values.shape != (len(rows),):
        raise DataError(
            f"the feature {name} has shape {values.shape} for {len(rows)} rows",
            where=FILE,
            why="it must return one number per row",
        )
    if np.isinf(values).any():
        raise DataError(
            f"the feature {name} is infinite in {int(np.isinf(values).sum())} rows",
            where=FILE,
            next="return NaN for unknown",
        )
    return values
