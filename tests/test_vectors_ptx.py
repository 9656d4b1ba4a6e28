"""Kernels over vectors run from their PTX on the software GPU: NumPy's numbers, no fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.codegen.device_lib import load_kernels
from graphc.codegen.scalar import SCALARS
from graphc.codegen.scalar_numpy import evaluate
from graphc.dtypes import DTYPES
from tests import softgpu
from tests.softgpu.standalone import Device
from tests.test_vectors import compiled, drawn, everything, spelled
from tests.vector_kernels import EXAMPLES, HEADER

pytestmark = pytest.mark.skipif(bool(softgpu.unavailable()), reason=f"{softgpu.unavailable()}")

CCS = ((7, 5), (9, 0), (10, 0))


@pytest.mark.parametrize("cc", CCS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_kernels_equal_numpy_by_their_ptx(name: str, cc: Any) -> None:
    example = EXAMPLES[name]
    kernel = load_kernels(HEADER + example.source, "<vectors>")[name]
    text = compiled(example.source, (cc,))[cc]
    args = example.make()
    device, addresses = Device(), {}
    for (parameter, _), array in zip(kernel.params, args, strict=True):
        blank = parameter in example.outputs
        addresses[parameter] = device.empty(array.nbytes) if blank else device.put(array)
    device.launch(text, (example.grid,), (kernel.threads,), *addresses.values())
    arrays = dict(zip(addresses, args, strict=True))
    for output, want in zip(example.outputs, example.expected(*args), strict=True):
        array = arrays[output]
        got = device.get(addresses[output], array.dtype, array.size).reshape(array.shape)
        if example.tolerance:
            np.testing.assert_allclose(got, want, example.tolerance, example.tolerance)
        else:
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["bool", "u8", "i32", "i64", "f16", "bf16", "f32", "f64"])
def test_every_function_of_vectors_has_the_bits_of_its_model(dtype: str) -> None:
    text = compiled(everything(dtype, 4), ((9, 0),))[9, 0]
    x, g = drawn(dtype)
    rows = spelled(dtype)
    device = Device()
    found = device.empty(len(rows) * 128 * 8)
    device.launch(text, (1,), (32,), device.put(x), device.put(g), found)
    results = device.get(found, np.float64, len(rows) * 128).reshape(len(rows), 128)
    a, b = x.astype(DTYPES[dtype].compute.numpy)
    for name, got in zip(rows, results, strict=True):
        row = SCALARS[name]
        operands = [g] * row.condition + [a, b, a][: row.arity - row.condition]
        want = evaluate("f64", evaluate(name, *operands))
        np.testing.assert_array_equal(got, want, err_msg=name)
