"""What the rows of a generation come to, window by window, and whether anything can be learned from them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from flywheel.errors import DataError
from flywheel.sections import Train
from flywheel.segments import as_bytes


@dataclass(frozen=True)
class Survey:
    """Labels: how many, how many of them are not finite or 1, and the least and greatest of those that are finite."""

    rows: int
    bad: int
    positive: int
    least: float
    greatest: float


def survey(labels: npt.NDArray[np.float32]) -> Survey:
    """What some labels come to."""
    finite = labels[np.isfinite(labels)]
    ends = (float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf)))
    return Survey(len(labels), len(labels) - len(finite), int((labels == 1).sum()), *ends)


def total(surveys: Iterable[Survey]) -> Survey:
    """What all of them come to."""
    whole = Survey(0, 0, 0, np.inf, -np.inf)
    for one in surveys:
        whole = Survey(
            whole.rows + one.rows,
            whole.bad + one.bad,
            whole.positive + one.positive,
            min(whole.least, one.least),
            max(whole.greatest, one.greatest),
        )
    return whole


def check(labels: Survey, kind: str, policy: Train) -> None:
    """Refuse labels that nothing can be learned from.

    Raises:
        DataError: too few rows, too few of a class, or a label that is no finite number.
    """
    if labels.bad:
        raise DataError(
            f"{labels.bad} labels are not finite numbers",
            next="add an expectation on label to expectations/events.json",
        )
    if labels.rows < policy.min_rows:
        raise DataError(
            f"{labels.rows:,} training rows are too few",
            why=f"[train] min_rows is {policy.min_rows:,}",
            next="flywheel status",
        )
    if kind == "binary":
        fewer = min(labels.positive, labels.rows - labels.positive)
        if fewer < policy.min_per_class:
            raise DataError(
                f"of {labels.rows:,} training rows {labels.positive:,} have label 1",
                why=f"[train] min_per_class is {policy.min_per_class}: nothing can be learned from one class",
                next="flywheel status",
            )
    elif labels.least == labels.greatest:
        raise DataError(
            f"all {labels.rows:,} training rows have the label {labels.least:g}",
            why="nothing can be learned from one value",
        )


def hashed(
    window: str, labels: npt.NDArray[np.float32], matrix: npt.NDArray[np.float32], names: Sequence[str]
) -> bytes:
    """The hash of a window's rows and labels.

    Raises:
        DataError: a feature is infinite.
    """
    infinite = np.isinf(matrix).any(axis=0)
    if infinite.any():
        name = names[int(np.argmax(infinite))]
        raise DataError(f"the feature {name} is infinite", where=f"window {window}", next="flywheel status")
    digest = xxhash.xxh3_128(as_bytes(matrix))
    digest.update(as_bytes(labels))
    return digest.digest()


def whole_hash(digests: Sequence[bytes]) -> str:
    """The hash of all rows, from those of the windows that have any, oldest first."""
    return xxhash.xxh3_128_hexdigest(b"".join(digests))
