"""The bytes that a plan says it moves: small caches make the cases by hand; see test_streaming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import f32, i64, nn
from graphc.device import CPU, H100, Device
from graphc.options import Options


def moved(function: Callable[..., Any], *types: Any, device: Device, level: int = 2) -> int:
    options = Options(level=level)
    lowered = graphc.compile(function, device=device, options=options).lower(*types)
    return lowered.plan.bytes_moved


def core(kib: int) -> Device:
    """A CPU with so much cache."""
    return replace(CPU, cache_bytes=kib << 10)


def gpu(kib: int) -> Device:
    """A GPU on which a launch can count on so much cache."""
    return replace(H100, cores=2, cache_bytes=2 * kib << 10)


BOTH = pytest.mark.parametrize("small", [core, gpu])
KIB = 1 << 10


@BOTH
def test_what_is_used_once_counts_once(small: Callable[[int], Device]) -> None:
    """However small the cache is."""
    x = f32[256, 1024]
    assert moved(lambda x: np.tanh(x) * 2.0, x, device=small(1)) == 2048 * KIB
    assert moved(lambda x, y: x + y, x, x, device=small(1)) == 3072 * KIB


def test_a_row_beyond_the_cache_is_read_by_every_phase() -> None:
    """A softmax whose rows fit reads them once; on CUDA the rows of all blocks that run count."""
    x, whole = f32[64, 50000], 4 * 64 * 50000
    once, again = moved(nn.softmax, x, device=core(1024)), moved(nn.softmax, x, device=core(64))
    assert once == 2 * whole and again > 2 * whole
    assert moved(nn.softmax, x, device=gpu(64 * 1024)) == 2 * whole
    assert moved(nn.softmax, x, device=gpu(1024)) > 2 * whole


def test_a_row_in_registers_is_read_once() -> None:
    assert moved(nn.softmax, f32[4096, 1024], device=gpu(1)) == 2 * 4 * 4096 * 1024


@BOTH
def test_a_row_of_all_rows_counts_once_where_it_stays(small: Callable[[int], Device]) -> None:
    x, row = f32[512, 8192], f32[8192]
    whole = 4 * 512 * 8192
    assert moved(lambda x, b: x + b, x, row, device=small(1024)) == 2 * whole + 32 * KIB


def test_a_long_row_of_all_rows_counts_again() -> None:
    x, row = f32[64, 1 << 16], f32[1 << 16]
    once = 4 * (2 * 64 + 1) << 16
    assert moved(lambda x, b: x + b, x, row, device=core(1024)) == once
    assert moved(lambda x, b: x + b, x, row, device=core(64)) == 4 * (3 * 64) << 16


def test_a_transpose_moves_whole_sectors_and_lines() -> None:
    """A core uses the rest of a line in the next row, where so many lines fit."""
    x, whole = f32[1024, 1024], 4 << 20
    assert moved(lambda x: x.T + 1.0, x, device=core(1024)) == 2 * whole
    assert moved(lambda x: x.T + 1.0, x, device=core(32)) == whole + 16 * whole
    assert moved(lambda x: x.T + 1.0, x, device=gpu(64)) == whole + 8 * whole
    assert moved(lambda x: x.T + 1.0, x, device=gpu(64 * 1024)) == 2 * whole


def test_a_column_costs_a_sector_or_a_line_for_each_element() -> None:
    x = f32[1 << 16, 64]
    assert moved(lambda x: x[:, 0] * 2.0, x, device=gpu(1)) == (32 + 4) << 16
    assert moved(lambda x: x[:, 0] * 2.0, x, device=core(1)) == (64 + 4) << 16
    near = f32[1 << 16, 4]
    assert moved(lambda x: x[:, 0] * 2.0, near, device=core(1)) == pytest.approx(
        (16 + 4) << 16, rel=1e-3
    )


@BOTH
def test_what_is_gathered_costs_a_run_each_up_to_all(small: Callable[[int], Device]) -> None:
    device = small(1)
    run = 32 if device.is_cuda else 64
    few, many = i64[1 << 10], i64[1 << 18]

    def take(table: Any, at: Any) -> Any:
        return np.take(table, at) * 2.0

    assert moved(take, f32[1 << 20], few, device=device) == (run + 8 + 4) << 10
    held = moved(take, f32[1 << 16], many, device=small(1024))
    assert held == (4 << 16) + ((8 + 4) << 18)
    rows = moved(lambda t, at: np.take(t, at, axis=0), f32[1 << 16, 64], few, device=device)
    assert rows == (256 + 8 + 256) << 10


def test_parts_of_a_concatenation_count_once() -> None:
    x = f32[1 << 18]
    for device in (core(1), gpu(1)):
        both = moved(lambda x, y: np.concatenate([x, y]) * 2.0, x, x, device=device)
        assert both == pytest.approx(4 * 4 << 18, rel=0.01)


def test_tiles_that_run_at_once_read_their_panels_together() -> None:
    x = f32[512, 512]
    assert moved(lambda x, y: x @ y, x, x, device=gpu(64 * 1024)) == 3 << 20
    few = moved(lambda x, y: x @ y, x, x, device=gpu(64))
    assert 3 << 20 < few <= (16 + 1) << 20  # 64 blocks, of which each reads two panels


@BOTH
def test_partials_count_where_they_are_written_and_read(small: Callable[[int], Device]) -> None:
    steps = graphc.compile(lambda x: x.sum(axis=0), device=small(1024)).lower(f32[8192, 1024])
    first, second = steps.plan.steps
    (parts,) = (steps.plan.buffers[b].type.nbytes for b in first.writes)
    assert first.moved == (32 << 20) + parts and second.moved == parts + 4096


@BOTH
def test_a_small_operand_of_several_launches_counts_once(
    small: Callable[[int], Device],
) -> None:
    """The tensors of an optimizer share their scalars."""

    def update(tensors: Any, rate: Any) -> Any:
        return [x - rate for x in tensors]

    types = [f32[1000], f32[64, 32], f32[7]]
    lowered = graphc.compile(update, device=small(1024)).lower(types, f32[()])
    (step,) = lowered.plan.steps
    assert step.moved == 8 * (1000 + 64 * 32 + 7) + 4


@BOTH
def test_nothing_is_moved_of_empty_arrays(small: Callable[[int], Device]) -> None:
    assert moved(lambda x: np.tanh(x) + 1.0, f32[0, 7], device=small(1)) == 0
    assert moved(lambda x: x.sum(axis=0), f32[0, 7], device=small(1)) == 28
