"""XGBoost's own C function for a prediction from an array, called as it is documented.

`Booster.inplace_predict` calls the same function, and takes 200 µs around it to find out what it was given and to make
a class for what comes back: for fifty rows a fifth of the whole.
"""

import ctypes
import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import xgboost as xgb
from xgboost.core import _LIB, _check_call

from flywheel.learn.features import Matrix

_CONFIG = json.dumps(
    {
        "type": 0,  # as `inplace_predict` has it: probabilities where the objective is one of them
        "training": False,
        "iteration_begin": 0,
        "iteration_end": 0,  # all of them
        "missing": float("nan"),
        "strict_shape": False,
        "cache_id": 0,
    }
).encode()
_Floats = ctypes.POINTER(ctypes.c_float)
_Sizes = ctypes.POINTER(ctypes.c_uint64)


def predictor(booster: xgb.Booster) -> Callable[[Matrix], npt.NDArray[np.float32]]:
    """What scores matrices of a booster with one output, shape (rows,); it says what `inplace_predict` says.

    It raises XGBoostError where the matrix has other columns than the booster.
    """

    def predict(matrix: Matrix) -> npt.NDArray[np.float32]:
        rows = np.ascontiguousarray(matrix, dtype=np.float32)
        described = b'{"data":[%d,true],"shape":[%d,%d],"strides":null,"typestr":"<f4","version":3}'
        shape, dims, scores = _Sizes(), ctypes.c_uint64(), _Floats()
        _check_call(
            _LIB.XGBoosterPredictFromDense(
                booster.handle,
                described % (rows.__array_interface__["data"][0], *rows.shape),
                _CONFIG,
                None,
                ctypes.byref(shape),
                ctypes.byref(dims),
                ctypes.byref(scores),
            )
        )
        # copied, for the library's memory is this thread's next prediction
        return np.frombuffer(ctypes.string_at(scores, 4 * len(rows)), dtype=np.float32)

    return predict
