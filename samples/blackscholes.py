"""Prices and greeks of a million options: the model in ten lines, its derivatives by graphc.

    python samples/blackscholes.py

The formula of Black and Scholes (1973) is written with NumPy. Price, delta, vega and theta of
every option come out of one compiled call.
"""

import argparse
import time

import numpy as np

import graphc
from graphc.numpy import erf


def normal(x):
    return 0.5 + 0.5 * erf(x * 0.5**0.5)


def call(spot, strike, years, rate, volatility):
    deviation = volatility * np.sqrt(years)
    d1 = (np.log(spot / strike) + (rate + 0.5 * volatility**2) * years) / deviation
    return spot * normal(d1) - strike * np.exp(-rate * years) * normal(d1 - deviation)


@graphc.compile
def greeks(spot, strike, years, rate, volatility):
    price, derivatives = graphc.vjp(call, spot, strike, years, rate, volatility)
    delta, _, theta, _, vega = derivatives(np.ones_like(price))
    return price, delta, vega, -theta


def specs():
    """The shapes for which `graphc compile samples/blackscholes.py` compiles, by function."""
    row = graphc.f32[1_000_000]
    return {"greeks": (row, row, row, graphc.f32[()], row)}


def main(options, target):
    rng = np.random.default_rng(0)
    spot, strike = rng.uniform(50, 150, (2, options)).astype(np.float32)
    years = rng.uniform(0.1, 2, options).astype(np.float32)
    volatility = rng.uniform(0.1, 0.5, options).astype(np.float32)
    compiled = graphc.compile(greeks, target=target)
    book = spot, strike, years, np.float32(0.02), volatility
    for _ in range(3):  # the first call compiles
        start = time.perf_counter()
        results = [np.asarray(a) for a in compiled(*book)]
        seconds = time.perf_counter() - start

    columns = "spot strike years volatility price delta vega theta"
    print(*(f"{name:>10}" for name in columns.split()))
    for row in np.stack([spot, strike, years, volatility, *results], axis=1)[:5]:
        print(*(f"{number:10.3f}" for number in row))
    print(f"{options} options in {1e3 * seconds:.1f} ms on {compiled.target}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--options", type=int, default=1_000_000)
    parser.add_argument("--target", default="auto", help="cpu, cuda or auto (the default)")
    main(**vars(parser.parse_args()))
