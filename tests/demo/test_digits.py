from __future__ import annotations

import numpy as np

from aimlite.demo.digits import load, split


def test_the_file_holds_the_test_part_of_the_data_set() -> None:
    digits = load()
    assert digits.images.shape == (1797, 64)
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    first = (digits.images[0].reshape(8, 8) * 16).astype(int)
    assert first[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert digits.labels[:10].tolist() == list(range(10))


def test_the_split_is_fixed_and_loses_nothing() -> None:
    digits = load()
    train, validation = split(digits)
    assert (len(train), len(validation)) == (1437, 360)
    together = np.concatenate([train.images, validation.images])
    assert sorted(map(bytes, together)) == sorted(map(bytes, digits.images))
    np.testing.assert_array_equal(split(digits)[1].labels, validation.labels)
