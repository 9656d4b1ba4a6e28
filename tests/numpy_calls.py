"""Calls of NumPy's functions that are made of others: `m` stands for the module."""

from __future__ import annotations

import numpy as np

_RNG = np.random.default_rng(0)
_X = _RNG.normal(size=(4, 6))
ARRAYS = {
    "X": _X,
    "V": np.array([0.5, -1.5, 2.25, 3, 0]),
    "B": _RNG.integers(-9, 9, (2, 3, 4)),
    "S": np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1, -1, 2.5, -2.5, 1e300, -7.75]),
    "I": np.array([0, 1, -1, 5, -7, 127, -128]),
    "N": np.where(_X > 1, np.nan, _X),
    "Q": np.array([3, 2, -2, 0, -0.0, np.nan, np.inf, 1, 5, -3, 2]),
}

_CALLS = """
m.vstack([X, X[0]]) | m.hstack([X, X]) | m.hstack([V, V, 1]) | m.dstack([X, X*2])
m.dstack([V, V]) | m.column_stack([V, V]) | m.column_stack([X, X[:, 0]]) | m.append(X, V)
m.append(X, X, axis=1) | m.block([[X, X], [X*2, np.ones((4, 6))]]) | m.block([V, 1, V])
m.block(V) | m.split(X, 2)[1] | m.split(X, [1, 3], axis=1)[2] | m.array_split(V, 3)[1]
m.array_split(V, 7)[6] | m.hsplit(X, 3)[1] | m.hsplit(V, [2])[1] | m.vsplit(X, 2)[0]
m.dsplit(B, 2)[1] | m.unstack(B, axis=1)[2] | m.tile(X, (2, 1)) | m.tile(V, (2, 1, 3))
m.tile(B, 2) | m.tile(X, (0, 2)) | m.repeat(X, 2) | m.repeat(X, 3, axis=1)
m.repeat(X, [1, 0, 2, 3], axis=0) | m.resize(V, (3, 4)) | m.roll(X, 1) | m.roll(X, -2, axis=1)
m.roll(B, (1, 2), axis=(0, 2)) | m.roll(B, 1, axis=(0, 0, 1)) | m.rollaxis(B, 2)
m.rollaxis(B, 0, 3) | m.rollaxis(B, 1, -1) | m.rot90(X) | m.rot90(B, 2, (1, 2))
m.rot90(B, 3, (2, 0)) | m.rot90(X, 4) | m.fliplr(X) | m.flipud(V) | m.diff(X)
m.diff(X, 2, axis=0) | m.diff(V, prepend=0, append=[1, 2]) | m.diff(X>3) | m.diff(V, 9)
m.diff(V, 0) | m.ediff1d(X) | m.ediff1d(V, to_begin=-99, to_end=[88, 99])
m.meshgrid(V, X[0])[0] | m.meshgrid(V, X[0])[1] | m.meshgrid(V, X[0], V, indexing="ij")[1]
m.meshgrid(V, X[0], sparse=True)[1] | m.meshgrid(V)[0] | m.broadcast_arrays(X, X[:, :1])[1]
m.atleast_1d(V[0]) | m.atleast_2d(V) | m.atleast_3d(V) | m.atleast_3d(X)
m.delete(X, 1, axis=0) | m.delete(X, [0, -1], axis=1) | m.delete(V, slice(1, 3))
m.insert(V, 1, 9) | m.insert(X, 1, [1, 2, 3, 4], axis=1)
m.insert(X, [1, 2], [[1, 2]], axis=1) | m.insert(X, [1], X[:, :2], axis=1)
m.insert(V, [2, 2], [5, 6]) | m.insert(X, 2, 7, axis=0) | m.insert(B, 1, X[0, :4], axis=1)
m.diagonal(X) | m.diagonal(B, 1, 1, 2) | m.diagonal(B, -1, 2, 0) | m.diagonal(X, 9)
m.trace(X) | m.trace(B, 1, 0, 2) | m.diag(V) | m.diag(V, 2) | m.diag(V, -1) | m.diag(X, 1)
m.diagflat(X, -2) | m.tri(3) | m.tri(3, 4, 1, dtype=np.int32) | m.vander(V) | m.vander(I, 3)
m.vander(V, 4, increasing=True) | m.vander(I, 1) | m.vecdot(X, X) | m.vecdot(X, X, axis=0)
m.matvec(X, X[0]) | m.vecmat(X[:, 0], X) | m.kron(X, V) | m.kron(V, B) | m.kron(I, I)
m.cross(X[:, :3], X[:, 3:]) | m.cross(X[:, :2], X[:, 3:]) | m.cross(X[:, :3], X[:, 4:])
m.cross(X[:, :2], X[:, 2:4]) | m.cross(B[:, :, 0], B[:, :, 1]) | m.cross(X[:3], X[:3], axis=0)
m.signbit(S) | m.signbit(I) | m.signbit(B>0) | m.copysign(S, Q) | m.copysign(I, I[::-1])
m.fabs(S) | m.fabs(I) | m.modf(S)[0] | m.modf(S)[1] | m.fmod(S, Q) | m.fmod(I, I[::-1])
m.fmod(I.astype(np.int8), 3) | m.fmod(S, -2.0) | m.fix(V) | m.fmax(S, Q) | m.fmin(S, Q)
m.fmax(I, 2) | m.fmin(I, 2.5) | m.heaviside(S, Q) | m.heaviside(S, .5) | m.heaviside(I, 1)
m.conj(V) | m.conjugate(I) | m.real(V) | m.imag(V) | m.iscomplex(V) | m.isreal(I)
m.isposinf(S) | m.isneginf(S) | m.isposinf(I) | m.isclose(S, Q)
m.isclose(S, S, equal_nan=True) | m.isclose(I, I+1) | m.isclose(V, V*1.000001)
m.allclose(V, V) | m.allclose(S, S) | m.array_equal(V, V) | m.array_equal(V, X)
m.array_equal(S, S, equal_nan=True) | m.nan_to_num(S)
m.nan_to_num(S, nan=1, posinf=2, neginf=-3) | m.nan_to_num(I)
m.nan_to_num(S.astype(np.float16)) | m.radians(V) | m.degrees(V) | m.deg2rad(I)
m.rad2deg(V.astype(np.float32)) | m.sinc(V) | m.sinc(I) | m.float_power(I, 2)
m.float_power(V.astype(np.float32), .5) | m.logaddexp2(V, V[::-1]) | m.logaddexp2(S, Q)
m.hypot(V, V[::-1]) | m.hypot(S, Q) | m.hypot(I, I) | m.bitwise_count(I)
m.bitwise_count(I.astype(np.int8)) | m.bitwise_count(I.astype(np.uint8))
m.bitwise_count(I.astype(np.uint64)) | m.nansum(N) | m.nansum(N, 0)
m.nanprod(N, 1, keepdims=True) | m.nanmean(N, 1) | m.nanmean(I) | m.nanvar(N, 0)
m.nanvar(N, 1, ddof=1) | m.nanstd(N) | m.nanstd(N, 0, ddof=3) | m.nanmax(N) | m.nanmax(N, 1)
m.nanmin(N, 0) | m.nanmax(I) | m.nanmin(N, 1, initial=0.) | m.nanargmax(N, 0) | m.nanargmin(N)
m.count_nonzero(B) | m.count_nonzero(B, axis=1) | m.count_nonzero(S) | m.ptp(X) | m.ptp(B, 1)
m.average(X) | m.average(X, 1) | m.average(X, weights=X) | m.average(X, 0, weights=V[:4])
m.average(X, 0, returned=True)[1] | m.average(X, 1, weights=X, returned=True)[1] | m.cov(X)
m.cov(X, rowvar=False) | m.cov(V) | m.cov(V, V*2) | m.cov(X, bias=True) | m.cov(B[0], ddof=0)
m.corrcoef(X) | m.corrcoef(V, V**2) | m.corrcoef(V) | m.trapezoid(V)
m.trapezoid(X, dx=.5, axis=0) | m.trapezoid(V, V) | m.trapezoid(X, X) | m.gradient(V)
m.gradient(V, 2.0) | m.gradient(X)[0] | m.gradient(X)[1] | m.gradient(X, axis=0)
m.gradient(X, .5, 2.)[1] | m.gradient(V, np.array([0., 1, 3, 4, 9]))
m.gradient(V, edge_order=2) | m.gradient(V, np.array([0., 1, 3, 4, 9]), edge_order=2)
m.gradient(I) | m.gradient(X.astype(np.float32))[1]
m.searchsorted([-1.5, 0, 0.5, 2.25], X) | m.searchsorted(V[:0], X)
m.searchsorted([1, 2, 2, 4], I, "right")
m.searchsorted([0.0, 1, np.inf, np.nan], S) | m.searchsorted([0.0, 1, np.nan], S, side="right")
m.searchsorted(V, 2.25, sorter=[1, 4, 0, 2, 3]) | m.interp(X, [-1, 0, 2], [3, 1, 5.0])
m.interp(S, [-2, 0, 2], [3, 1, 5], left=-9, right=0.5) | m.interp(V, [1], [2])
m.cumsum(X) | m.cumsum(X, 0) | m.cumsum(B, axis=1) | m.cumsum(I.astype(np.uint8)) | m.cumsum(B > 0)
m.cumsum(m.tile(X, (30, 1)), 0) | m.cumsum(S) | m.cumsum(X[:, :0], 1) | m.cumprod(V)
m.cumprod(X, 1, dtype=np.float32) | m.cumprod(B, 2) | m.nancumsum(N, 1) | m.nancumprod(N, 0)
m.cumulative_sum(X, axis=1, include_initial=True) | m.cumulative_prod(V, include_initial=True)
np.add.accumulate(X) | np.maximum.accumulate(N, 1) | np.minimum.accumulate(I)
np.multiply.accumulate(V)
"""
_REFUSED = """
m.searchsorted(X, V) | m.searchsorted(V, X, "middle") | m.interp(V, [1, 2], [1]) | m.cumsum(X, 2)
m.cumulative_sum(X)
m.split(X, 3) | m.vsplit(V, 1) | m.dsplit(X, 2) | m.repeat(X, [1, 0], axis=0)
m.repeat(X, -1) | m.rot90(X, 1, (0, 0)) | m.fliplr(V) | m.diff(V, -1) | m.delete(V, 10)
m.insert(V, [1, 2], [1, 2, 3]) | m.cross(B, B) | m.average(X, weights=V)
"""


def _listed(calls: str) -> list[str]:
    return [c.strip() for line in calls.strip().splitlines() for c in line.split(" | ")]


CALLS = _listed(_CALLS)
REFUSED = _listed(_REFUSED)
"""What NumPy raises an error for."""
