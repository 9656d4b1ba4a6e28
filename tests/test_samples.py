"""The samples do what they say: the numbers, the accuracy, one native call, vector code."""

from __future__ import annotations

import importlib.util
import math
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import graphc
from graphc import optim

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
STEPS = 50


def load(name: str) -> ModuleType:
    """A sample as a module; it runs nothing."""
    spec = importlib.util.spec_from_file_location(f"sample_{name}", SAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mlp = load("mlp")
blackscholes = load("blackscholes")


# --- the network --------------------------------------------------------------------------


def reference_step(params, mean, square, count, x, y):
    """A training step in float64, differentiated by hand; returns the loss before the step."""
    w1, b1, w2, b2 = params
    before = x @ w1 + b1
    hidden = np.where(before > 0, before, 0)
    logits = hidden @ w2 + b2
    probability = 1 / (1 + np.exp(-logits))
    loss = -np.mean(y * np.log(probability) + (1 - y) * np.log(1 - probability))

    d_logits = (probability - y) / len(y)
    d_before = d_logits[:, None] * w2 * (before > 0)
    grads = [x.T @ d_before, d_before.sum(0), hidden.T @ d_logits, d_logits.sum()]
    for i, g in enumerate(grads):
        mean[i] = 0.9 * mean[i] + 0.1 * g
        square[i] = 0.999 * square[i] + 0.001 * g * g
        m, v = mean[i] / (1 - 0.9**count), square[i] / (1 - 0.999**count)
        params[i] = params[i] - 0.01 * m / (np.sqrt(v) + 1e-8)
    return loss


def some_batches():
    """Parameters, and as many batches of the sample's data as there are steps."""
    rng = np.random.default_rng(1)
    (x, y), _ = mlp.data(rng)
    params = mlp.initial(rng)
    found = []
    while len(found) < STEPS:
        found += mlp.batches(x, y, rng)
    return params, found[:STEPS]


def compiled_step() -> graphc.Compiled:
    return graphc.compile(mlp.step, target="cpu")


def executable_of(compiled: graphc.Compiled):
    (entry,) = compiled._entries.values()
    return entry.executable


def test_mlp_equals_the_reference_step_by_step():
    params, batches = some_batches()
    reference = [params[k].astype(np.float64) for k in ("w1", "b1", "w2", "b2")]
    mean, square = [np.zeros_like(p) for p in reference], [np.zeros_like(p) for p in reference]
    moments, step = optim.adam_init(params), compiled_step()
    for count, (x, y) in enumerate(batches, start=1):
        expected = reference_step(reference, mean, square, count, x.astype(np.float64), y)
        params, moments, loss, _ = step(params, moments, x, y)
        assert loss.dtype == np.float32
        np.testing.assert_allclose(loss, expected, rtol=1e-5, err_msg=f"step {count}")
    for name, expected in zip(("w1", "b1", "w2", "b2"), reference, strict=True):
        np.testing.assert_allclose(params[name], expected, rtol=1e-3, atol=1e-5, err_msg=name)


def test_mlp_makes_one_native_call_a_step():
    params, batches = some_batches()
    moments, step = optim.adam_init(params), compiled_step()
    for count, (x, y) in enumerate(batches[:5], start=1):
        params, moments, *_ = step(params, moments, x, y)
        assert executable_of(step).native_calls == count


def test_mlp_step_is_at_most_twelve_steps_of_the_plan():
    assert len(compiled_step().lower(*mlp.specs()["step"]).plan.steps) <= 12


def test_mlp_learns():
    accuracy, history = mlp.train(target="cpu", show=False)
    assert accuracy >= 0.96
    assert history.shape == (60, 2) and history[-1, 0] < history[0, 0] / 5


def test_mlp_runs_as_a_program(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    path = tmp_path / "curve.png"
    mlp.draw(np.array([[0.5, 0.8], [0.1, 0.97]]), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_mlp_is_short():
    assert len((SAMPLES / "mlp.py").read_text("utf-8").splitlines()) < 120


# --- vector code --------------------------------------------------------------------------

PACKED = re.compile(r"\tv?(?:add|sub|mul|div|sqrt|max|min|f[n]?m(?:add|sub)\w*|cmp\w*)p[sd]\t")
FEW = 8
"""A kernel whose every buffer holds this many values or fewer is one of a few scalars."""


@cache
def kernels_of(name: str):
    """The compiled CPU kernels of the sample's function, by name, with their parameters."""
    from graphc.codegen.device_lib import load_kernels
    from graphc.codegen.llvm_kernels import compile_cpu

    sample, function = {"mlp": (mlp, "step"), "blackscholes": (blackscholes, "greeks")}[name]
    compiled = graphc.compile(getattr(sample, function), target="cpu")
    emitted = compiled.lower(*sample.specs()[function]).kernels
    sources = [load_kernels(k.source, f"<{k.key}>")[k.name] for k in emitted]
    return [*zip(emitted, sources, compile_cpu(sources), strict=True)]


def values_in(kind: graphc.Type) -> float:
    """How many values a buffer holds; infinitely many if its size comes from the table."""
    return math.prod(n if isinstance(n, int) else math.inf for n in kind.shape)


@pytest.mark.parametrize("sample", ["mlp", "blackscholes"])
def test_float_kernels_use_packed_instructions(sample):
    scalar = []
    judged = 0
    for emitted, source, compiled in kernels_of(sample):
        floats = [
            kind
            for _, kind in source.params
            if isinstance(kind, graphc.Type) and kind.dtype.is_float
        ]
        if all(values_in(kind) <= FEW for kind in floats):
            continue
        judged += 1
        if not PACKED.search(compiled.assembly()):
            scalar.append(emitted.source)
    assert judged, "no kernel was judged"
    assert not scalar, "\n".join(scalar)


# --- Black and Scholes --------------------------------------------------------------------


def test_blackscholes_prices_and_greeks():
    """Against the closed forms in float64."""
    rng = np.random.default_rng(0)
    spot, strike = rng.uniform(50, 150, (2, 1000)).astype(np.float32)
    years, volatility = rng.uniform(0.1, 0.9, (2, 1000)).astype(np.float32)
    rate = np.float32(0.02)
    compiled = graphc.compile(blackscholes.greeks, target="cpu")
    results = compiled(spot, strike, years, rate, volatility)
    assert executable_of(compiled).native_calls == 1

    erf = np.vectorize(math.erf)
    s, k, t, r, v = (np.float64(a) for a in (spot, strike, years, rate, volatility))
    d1 = (np.log(s / k) + (r + v * v / 2) * t) / (v * np.sqrt(t))
    d2 = d1 - v * np.sqrt(t)
    cdf1, cdf2 = (0.5 * (1 + erf(d / np.sqrt(2))) for d in (d1, d2))
    density = np.exp(-d1 * d1 / 2) / np.sqrt(2 * np.pi)
    price = s * cdf1 - k * np.exp(-r * t) * cdf2
    theta = -s * density * v / (2 * np.sqrt(t)) - r * k * np.exp(-r * t) * cdf2
    expected = price, cdf1, s * density * np.sqrt(t), theta
    names = "price", "delta", "vega", "theta"
    for name, ours, right in zip(names, results, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, right, rtol=2e-4, atol=2e-4, err_msg=name)


def test_blackscholes_prints_its_table(capsys):
    blackscholes.main(1000, "cpu")
    lines = capsys.readouterr().out.splitlines()
    assert "delta" in lines[0] and len(lines) == 7 and "1000 options" in lines[-1]
