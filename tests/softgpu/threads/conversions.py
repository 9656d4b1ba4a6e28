"""`cvt` between integers and floating-point numbers, rounded and saturated as PTX says."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.softgpu.ptx.kinds import F64, NUMPY
from tests.softgpu.threads.integers import choose

_INTEGRAL = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def to_integral(x: Any, mode: str) -> Any:
    """The integer next to `x`, in the type of `x`."""
    return _INTEGRAL[mode](x)


def float_to_integer(x: Any, kind: str, mode: str) -> Any:
    """The integer next to `x`, kept within the range of the type.

    NaN gives the highest bit alone where either type has 64 bits, and 0 otherwise.
    """
    to = NUMPY[kind]
    info = np.iinfo(to)
    whole = _INTEGRAL[mode](x.astype(F64))
    low, high = F64(info.min), F64(info.max)
    inside = choose((whole > low) & (whole < high), whole, F64(0)).astype(to)
    clipped = choose(whole >= high, to(info.max), choose(whole <= low, to(info.min), inside))
    wide = info.bits == 64 or x.dtype == F64
    nan = to(0) if not wide else to(info.min) if info.min else to(1 << (info.bits - 1))
    return choose(np.isnan(x), nan, clipped)


def integer_to_integer(x: Any, kind: str) -> Any:
    """`x` kept within the range of the type: `cvt.sat`."""
    to, info, have = NUMPY[kind], np.iinfo(NUMPY[kind]), np.iinfo(x.dtype)
    low, high = max(info.min, have.min), min(info.max, have.max)
    return np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high)).astype(to)


def to_float(x: Any, kind: str, mode: str) -> Any:
    """A number as another type of float, rounded `rn`, `rz`, `rm` or `rp`."""
    to = NUMPY[kind]
    near = x.astype(to)
    if mode in ("rn", "") or near.dtype == x.dtype:
        return near
    return _directed(near, _compare(near, x), mode)


def _compare(near: Any, x: Any) -> Any:
    """The sign of `near - x`, exactly; an integer may have more digits than float64."""
    if x.dtype.kind == "f":
        wide = near.astype(F64)
        return (wide > x).astype(np.int8) - (wide < x).astype(np.int8)
    back = near.astype(np.longdouble)
    exact = x.astype(np.longdouble)
    return (back > exact).astype(np.int8) - (back < exact).astype(np.int8)


def _directed(near: Any, over: Any, mode: str) -> Any:
    to = near.dtype.type
    down, up = np.nextafter(near, to(-np.inf)), np.nextafter(near, to(np.inf))
    if mode == "rz":
        inward = choose(np.signbit(near), up, down)
        away = choose(np.signbit(near), over < 0, over > 0)
        return choose(away, inward, near)
    if mode == "rm":
        return choose(over > 0, down, near)
    return choose(over < 0, up, near)


def half_bits(x: Any, mode: str) -> Any:
    """The bits of a float16."""
    return to_float(x, "F16", mode).view(np.uint16)
