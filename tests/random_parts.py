"""What random graphs are made of: attributes by what they are called, special numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from graphc.dtypes import DType, Type
from graphc.kinds import VIEW
from graphc.opdef import Op
from graphc.ops.creation import Constant


class Chooser(Protocol):
    """What choices need: random numbers, and the limits that the graph under way has."""

    rng: np.random.Generator
    tame: bool
    dtypes: Sequence[DType]

    def pick(self, things: Sequence[Any]) -> Any: ...
    def chance(self, probability: float) -> bool: ...
    def shape(self) -> tuple[int, ...]: ...
    def numbers(self, type: Type) -> Any: ...


def domains(op: Op) -> list[tuple[float, float]]:
    """The domain of each operand, as the record states it."""
    given = op.domain
    if given and isinstance(given[0], tuple):
        return list(given)  # type: ignore[arg-type]
    return [given] * len(op.operands)  # type: ignore[list-item]


def propose(maker: Chooser, op: Op, types: Sequence[Type]) -> dict[str, Any]:
    """Attributes for an op, by what they are called; whether they fit, its type rule says."""
    sample = maker.pick(op.samples) if op.samples else {}
    if not op.attrs:
        return {}
    made = _PROPOSALS.get(tuple(sorted(op.attrs)), lambda maker, types: {})(maker, types)
    if op.kind is not VIEW and "axes" in made:
        made["axes"] = tuple(sorted(made["axes"]))
    return {name: made.get(name, sample.get(name)) for name in op.attrs}


def _broadcast(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    (x,) = types
    shape, dims = list(x.shape), list(range(x.ndim))
    for _ in range(int(maker.pick((0, 1, 1, 2)))):
        at = int(maker.rng.integers(len(shape) + 1))
        shape.insert(at, int(maker.pick((1, 2, 3, 4, 5, 7))))
        dims = [d + (d >= at) for d in dims]
    return {"shape": tuple(shape), "dims": tuple(dims)}


def _reshape(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    (x,) = types
    shape = list(x.static_shape)
    match maker.pick(("same", "flat", "one", "split", "merge")):
        case "flat":
            shape = [x.size]
        case "one":
            shape.insert(int(maker.rng.integers(len(shape) + 1)), 1)
        case "split" if shape:
            at = int(maker.rng.integers(len(shape)))
            half = next((n for n in (2, 3) if shape[at] % n == 0), 1)
            shape[at : at + 1] = [half, shape[at] // half]
        case "merge" if len(shape) > 1:
            shape[:2] = [shape[0] * shape[1]]
    return {"shape": tuple(shape)}


def _transpose(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    n = types[0].ndim
    return {
        "perm": tuple(range(n))
        if maker.chance(0.2)
        else tuple(map(int, maker.rng.permutation(n)))
    }


def _slice(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    start, stop, step = [], [], []
    idle = maker.chance(0.2)
    for n in types[0].static_shape:
        a, b = sorted(int(maker.rng.integers(n + 1)) for _ in range(2))
        a, b = (0, n) if idle or maker.chance(0.3) else (a, b)
        start.append(a)
        stop.append(b)
        step.append(1 if idle else int(maker.pick((1, 1, 2, 3))))
    return {"start": tuple(start), "stop": tuple(stop), "step": tuple(step)}


def _pad(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    (x,) = types
    idle = maker.chance(0.2)
    widths = ((0,) if idle else (0, 0, 1, 2), (0,) if idle or maker.chance(0.6) else (0, 1))
    low, high = (tuple(int(maker.pick(widths[0])) for _ in x.shape) for _ in range(2))
    interior = tuple(int(maker.pick(widths[1])) for _ in x.shape)
    value = maker.pick((0, 1)) if not x.dtype.is_float else maker.pick((0.0, 0.5, -0.0))
    return {"low": low, "high": high, "interior": interior, "value": value}


def _axes(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    axes = range(types[0].ndim)
    if maker.chance(0.3):  # the longest run of axes of size 1
        return {"axes": tuple(a for a in axes if types[0].shape[a] == 1)}
    chosen = tuple(a for a in axes if maker.chance(0.5))
    return {"axes": chosen if maker.chance(0.8) else chosen[::-1]}


def _spec(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    x, y = types
    free = iter("abcdefgh")
    left = [next(free) for _ in x.shape]
    right: list[str] = []
    for size in y.shape:
        same = [a for a, n in zip(left, x.shape, strict=True) if n == size and a not in right]
        right.append(maker.pick(same) if same and maker.chance(0.8) else next(free))
    both = set(left) & set(right)
    kept = [a for a in dict.fromkeys(left + right) if a not in both or maker.chance(0.5)]
    maker.rng.shuffle(kept)
    return {"spec": f"{''.join(left)},{''.join(right)}->{''.join(kept)}"}


def _iota(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    shape = maker.shape() or (3,)
    numeric = [d for d in maker.dtypes if d.kind != "b"]
    axis = int(maker.rng.integers(len(shape)))
    return {"dtype": maker.pick(numeric), "shape": shape, "axis": axis}


def _constant(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    type = Type(maker.pick(maker.dtypes), maker.shape())
    array = maker.numbers(type)
    if maker.chance(0.3) and array.size:
        array = np.full_like(array, array.reshape(-1)[0])
    return {"value": Constant(array)}


def _cast(maker: Chooser, types: Sequence[Type]) -> dict[str, Any]:
    floats = [d for d in maker.dtypes if d.is_float]
    return {"dtype": maker.pick(floats if maker.tame else maker.dtypes)}


_PROPOSALS: dict[tuple[str, ...], Callable[[Chooser, Sequence[Type]], dict[str, Any]]] = {
    ("dims", "shape"): _broadcast,
    ("shape",): _reshape,
    ("perm",): _transpose,
    ("start", "step", "stop"): _slice,
    ("high", "interior", "low", "value"): _pad,
    ("axes",): _axes,
    ("spec",): _spec,
    ("axis", "dtype", "shape"): _iota,
    ("value",): _constant,
    ("dtype",): _cast,
}


def special_values(dtype: DType) -> Any:
    """Numbers at which identities of real numbers fail: zeros, infinities, nan, extremes."""
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        numbers = {int(info.min), int(info.max), 0, 1, 2, 3, 7, int(info.max) // 2 + 1}
        numbers |= {-1, -2, -5} if dtype.kind == "i" else set()
        return np.array(sorted(numbers), dtype.numpy)
    info = ml_dtypes.finfo(dtype.numpy)
    halves = [0.0, 1.0, 0.5, 2.5, 3.0, float(info.max), float(info.smallest_subnormal)]
    halves += [float(info.tiny), float(info.max) / 2, np.inf, 1e-3, 88.0, 0.1, 7.7]
    return np.array([*halves, *(-h for h in halves), np.nan], dtype.numpy)
