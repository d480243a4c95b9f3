"""Whether rows were served with the features that the dataset gives for them now."""

import numpy as np
import numpy.typing as npt

from flywheel.learn import features


def differing(served: npt.NDArray[np.uint64], matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """The rows whose features are not those that were served.

    Args:
        served: the hash of each row's features as the ranker logged it, shape (rows,).
        matrix: the features recomputed by the same recipe, shape (rows, columns).
    """
    return np.flatnonzero(features.digest(matrix) != served)
