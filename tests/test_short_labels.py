"""Labels of 64 bits in row kernels: compared in 32, and meaning what they mean in NumPy."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import f32, i64, nn
from graphc import numpy as gnp
from graphc.device import CPU, H100, Device
from tests.codegen_harness import run_plan_checked

BOTH = pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])
CLASSES = 40
LABELS = np.array([0, 39, -1, 40, -40, 2**32, 2**32 + 7, -(2**32) + 7, 2**63 - 1, -(2**63), 7])


def hits(x: Any, labels: Any) -> Any:
    """Sums with 1 in place of all but the label, and of what is not three behind it."""
    column = gnp.arange(CLASSES)
    hit = np.where(labels[:, None] == column, x, 1.0)
    return hit.sum(axis=1), np.where(column + 3 != labels[:, None], x, 0.0).sum(axis=1)


def lowered(function: Any, *types: Any, device: Device) -> Any:
    return graphc.compile(function, device=device).lower(*types)


def run(low: Any, x: Any) -> Any:
    """The results for LABELS: by the checker where there is no GPU."""
    if low.device is CPU:
        return low.compile().executable([x, LABELS])
    return run_plan_checked(low.plan, [x, LABELS])


@BOTH
def test_labels_that_are_no_column_stay_so(device: Device) -> None:
    x = np.random.default_rng(0).standard_normal((len(LABELS), CLASSES), np.float32)
    low = lowered(hits, f32[x.shape], i64[LABELS.shape], device=device)
    assert any("_i32 = where(" in kernel.source for kernel in low.kernels)
    wanted = [np.asarray(w) for w in hits(x.astype(np.float64), LABELS)]
    got = run(low, x)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@BOTH
def test_cross_entropy_ignores_labels_that_are_no_class(device: Device) -> None:
    low = lowered(
        nn.softmax_cross_entropy, f32[len(LABELS), CLASSES], i64[LABELS.shape], device=device
    )
    x = np.random.default_rng(1).standard_normal((len(LABELS), CLASSES), np.float32)
    (wanted,) = low.graph.run(x, LABELS)
    (got,) = run(low, x)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert (np.asarray(got) == 0).sum() == len(LABELS) - 3


def loss(x: Any, labels: Any) -> Any:
    return nn.softmax_cross_entropy(x, labels).mean()


@BOTH
def test_the_loop_compares_words_of_32_bits(device: Device) -> None:
    (kernel, *_) = lowered(graphc.grad(loss), f32[64, 1000], i64[64], device=device).kernels
    compared = [line for line in kernel.source.splitlines() if re.search(r" == labels?_", line)]
    assert compared and all("_i32" in line for line in compared), kernel.source
    if device is H100:
        assert "setp.eq.s64" not in kernel.ptx((9, 0))


def test_columns_beyond_32_bits_are_compared_with_all_of_a_label() -> None:
    def count(labels: Any, x: Any) -> Any:
        return np.where(labels[:, None] == gnp.arange(3 << 30), x[:, None], 0.0).sum(axis=1)

    for device in (CPU, H100):
        kernels = lowered(count, i64[2], f32[2], device=device).kernels
        assert not any("i32" in kernel.source for kernel in kernels)


def test_a_label_that_changes_in_the_loop_stays_as_it_is() -> None:
    def count(labels: Any, x: Any) -> Any:
        return np.where(labels == gnp.arange(CLASSES), x, 0.0).sum(axis=1)

    types = i64[8, CLASSES], f32[8, CLASSES]
    for device in (CPU, H100):
        (kernel,) = lowered(count, *types, device=device).kernels
        assert "i32" not in kernel.source
