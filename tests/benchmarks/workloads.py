"""What is timed: inputs, and the right results by NumPy in float64.

Everything here needs NumPy alone, since each peer imports it in its own interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, Any]
"""Inputs by name, in the order of the arguments: arrays, or lists and tuples of such."""

TRAINING = ("mlp_step", "tiny_step", "adam")
"""The workloads that take a state first, and may write into it."""
LEARNING_RATE = 1e-5  # so small that thousands of steps on one batch lead nowhere


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    `inputs(rng, quick)` makes the inputs. A training step takes its `state` first, and hands
    the next one on as its first result. `tolerance` bounds the error of each result, relative
    to its largest value.
    """

    name: str
    title: str
    inputs: Callable[[np.random.Generator, bool], Arrays]
    tolerance: float = 1e-4

    def make(self, quick: bool) -> Arrays:
        """The inputs, the same in every process."""
        return self.inputs(np.random.default_rng(0), quick)


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Any:
    """Normal numbers in float32."""
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def repeated(rng: np.random.Generator, times: int, *shape: int) -> Any:
    """Normal numbers, the same `times` times along the first axis: a large array at once."""
    return np.tile(normal(rng, shape[0] // times, *shape[1:]), (times, *[1] * (len(shape) - 1)))


def _rows(quick: bool, rows: int) -> int:
    return rows // 32 if quick else rows


def _matrix(*names: str) -> Callable[[np.random.Generator, bool], Arrays]:
    """Inputs 4096x1024 called x and dout, 1024 the others."""

    def inputs(rng: np.random.Generator, quick: bool) -> Arrays:
        full = (_rows(quick, 4096), 1024)
        return {n: normal(rng, *(full if n in ("x", "dout") else full[1:])) for n in names}

    return inputs


def _labels(rows: int, classes: int) -> Callable[[np.random.Generator, bool], Arrays]:
    def inputs(rng: np.random.Generator, quick: bool) -> Arrays:
        n = _rows(quick, rows)
        labels = rng.integers(0, classes, n).astype(np.int32)
        return {"logits": normal(rng, n, classes), "labels": labels}

    return inputs


def _many_classes(rng: np.random.Generator, quick: bool) -> Arrays:
    n, classes = _rows(quick, 8192), 32000
    labels = rng.integers(0, classes, n).astype(np.int32)
    return {"logits": repeated(rng, 32, n, classes), "labels": labels}


def _large(rng: np.random.Generator, quick: bool) -> Arrays:
    return {"x": repeated(rng, 64, _rows(quick, 65536), 1024)}


def _tall(rng: np.random.Generator, quick: bool) -> Arrays:
    return {"x": normal(rng, _rows(quick, 8192), 1024)}


def _options(rng: np.random.Generator, quick: bool) -> Arrays:
    n = _rows(quick, 1_000_000)
    prices = {"spot": (50, 150), "strike": (50, 150)}
    ranges = {**prices, "years": (0.1, 2), "volatility": (0.1, 0.5)}
    return {k: rng.uniform(*ends, n).astype(np.float32) for k, ends in ranges.items()}


def _parameters(rng: np.random.Generator, shapes: Sequence[tuple[int, ...]]) -> Arrays:
    """The state of Adam before its first step: parameters, both moments, and the count."""
    params = [normal(rng, *s, scale=0.05) for s in shapes]
    mean, square = ([np.zeros(s, np.float32) for s in shapes] for _ in range(2))
    return {"state": (params, mean, square, np.zeros((), np.float32))}


MLP = [(784, 512), (512,), (512, 256), (256,), (256, 10), (10,)]
TREE = [*MLP, *[(128, 128)] * 8, *[(128,)] * 6]


def _mlp(rng: np.random.Generator, quick: bool) -> Arrays:
    n = _rows(quick, 256)
    labels = rng.integers(0, 10, n).astype(np.int32)
    return {**_parameters(rng, MLP), "x": normal(rng, n, 784), "labels": labels}


def _tiny(rng: np.random.Generator, quick: bool) -> Arrays:
    labels = rng.integers(0, 2, 32).astype(np.float32)
    shapes = [(10, 20), (20,), (20,), ()]
    return {**_parameters(rng, shapes), "x": normal(rng, 32, 10), "labels": labels}


def _tree(rng: np.random.Generator, quick: bool) -> Arrays:
    shapes = TREE[-14:] if quick else TREE
    return {**_parameters(rng, shapes), "grads": [normal(rng, *s) for s in shapes]}


def _values(rng: np.random.Generator, quick: bool) -> Arrays:
    return {"x": normal(rng, 256)}


WORKLOADS = (
    Workload("bias_gelu", "bias + gelu (tanh), 4096x1024", _matrix("x", "b")),
    Workload("softmax", "softmax, 4096x1024", _matrix("x")),
    Workload("layer_norm", "layer norm, 4096x1024", _matrix("x", "w", "b")),
    Workload(
        "layer_norm_grad",
        "layer norm, forward and backward, 4096x1024",
        _matrix("x", "w", "b", "dout"),
    ),
    Workload("xent_10", "cross-entropy, forward and backward, 4096x10", _labels(4096, 10)),
    Workload(
        "xent_32000", "cross-entropy, forward and backward, 1024x32000", _labels(1024, 32000)
    ),
    Workload("black_scholes", "Black–Scholes, 1M options", _options),
    Workload("greeks", "Black–Scholes and three greeks, 1M options", _options, tolerance=1e-3),
    Workload("mlp_step", "MLP 784-512-256-10, batch 256, Adam step", _mlp, tolerance=1e-3),
    Workload("tiny_step", "MLP 10-20-1, batch 32, Adam step", _tiny, tolerance=1e-3),
    Workload("adam", "Adam, 20 tensors, 667658 values", _tree),
    Workload("ten_kernels", "ten tanh of 256 values, a kernel each", _values),
    Workload("twenty_kernels", "twenty tanh of 256 values, a kernel each", _values),
)
"""The rows on the CPU, in order."""

CUDA_WORKLOADS = (
    Workload("negate", "-x: a copy by a kernel, 65536x1024", _large),
    *(w for w in WORKLOADS if w.name in ("softmax", "layer_norm")),
    Workload(
        "layer_norm_backward", "layer norm's gradient, 4096x1024",
        _matrix("x", "w", "b", "dout"),
    ),
    Workload("rms_norm", "RMS norm, 4096x1024", _matrix("x", "w")),
    *(w for w in WORKLOADS if w.name == "bias_gelu"),
    Workload("xent", "cross-entropy, 8192x32000", _many_classes),
    Workload("xent_grad", "cross-entropy and its gradient, 8192x32000", _many_classes),
    Workload("column_sum", "column sum, 8192x1024", _tall),
    *(w for w in WORKLOADS if w.name in ("adam", "greeks", "mlp_step")),
    Workload("small", "tanh of 256 values: the host's part of a call", _values),
)  # fmt: skip
"""The rows on CUDA, in order; the first is what the others are held against."""

ROWS = {"cpu": WORKLOADS, "cuda": CUDA_WORKLOADS}

BY_NAME: Mapping[str, Workload] = {w.name: w for rows in ROWS.values() for w in rows}
