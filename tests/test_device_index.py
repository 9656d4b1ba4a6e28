"""Indices that choose elements in one piece are told from the others, with their place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.dtypes import f32
from graphc.runtime.device_index import as_keys, at_run_time, has_mask, window

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
PLACES = st.none() | st.integers(-5, 5)
KEYS = st.lists(
    st.one_of(
        st.integers(-4, 3),
        st.integers(-4, 3).map(np.int32),
        st.builds(slice, PLACES, PLACES, st.none() | st.sampled_from([-2, -1, 1, 2])),
        st.just(None),
        st.just(...),
    ),
    max_size=5,
).map(tuple)


def numpys(shape, keys):
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    try:
        return x[keys]
    except IndexError:
        return None


@given(SHAPES, KEYS)
@settings(max_examples=2000)
def test_a_window_has_the_elements_that_numpy_chooses(shape, keys):
    found, expected = window(f32[shape], keys), numpys(shape, keys)
    if expected is None:
        assert found is None
    elif found is not None:
        start, type = found
        flat = np.arange(np.prod(shape, dtype=int))[start : start + type.size]
        assert type.shape == expected.shape
        assert np.array_equal(flat.reshape(type.shape), expected)
    else:
        # It lies apart: the places of its elements are not those of neighbours.
        assert not np.array_equal(np.diff(expected.ravel()), np.ones(expected.size - 1))


@given(SHAPES, KEYS)
@settings(max_examples=500)
def test_an_integer_as_an_array_chooses_the_same(shape, keys):
    expected = numpys(shape, keys)
    if expected is not None:
        assert np.array_equal(numpys(shape, at_run_time(f32[shape], keys)), expected)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ((slice(None), 1), np.ndarray),
        ((..., -1), np.ndarray),
        ((None, slice(None), np.int64(2)), np.ndarray),
        ((slice(None), 4), int),
        ((0, 1), int),
        ((slice(None), True), bool),
    ],
)
def test_one_integer_among_slices_becomes_an_array(keys, kind):
    assert type(at_run_time(f32[3, 4], keys)[-1]) is kind


def test_lists_become_arrays_and_masks_are_told():
    keys = as_keys([1, 2])
    assert keys[0].dtype == np.int64 and not has_mask(keys)
    assert as_keys([])[0].dtype == np.int64
    assert has_mask(as_keys([True, False])) and has_mask(as_keys((0, np.array([True]))))
    assert window(f32[3], as_keys([1, 2])) is None
