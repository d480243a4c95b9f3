import numpy as np

from flywheel.learn import features
from flywheel.measure.skew import differing


def test_a_row_that_was_served_otherwise_in_any_bit_is_found():
    matrix = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    served = matrix.copy()
    served[3, 0] = np.nextafter(served[3, 0], np.float32(np.inf))
    served[7, 4] = np.nan
    served[8] = served[9]
    assert differing(features.digest(served), matrix).tolist() == [3, 7, 8]
    assert differing(features.digest(matrix), matrix).tolist() == []


def test_what_says_the_same_is_the_same():
    one = np.array([[0.0, np.nan, 1.0]], np.float32)
    other = np.array([[-0.0, 0, 1.0]], np.float32)
    other.view(np.uint32)[0, 1] = 0xFFC00123  # a NaN with a sign and a payload
    assert differing(features.digest(other), one).tolist() == []
    assert features.digest(np.empty((0, 3), np.float32)).tolist() == []


def test_a_digest_is_the_same_in_every_version():
    assert features.digest(np.array([[1.5, np.nan, 0.0]], np.float32)).tolist() == [14170851863336456875]
