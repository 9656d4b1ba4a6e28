"""Monte Carlo: an Asian call option by simulated paths, its standard error, and its delta."""

import numpy as np

STRIKE, RATE, VOLATILITY, YEARS, DAYS = 100.0, 0.03, 0.2, 1.0, 12


def payoffs(walk, spot):
    """Discounted payoffs of paths, of which `walk` is the driftless logarithm."""
    days = np.arange(1, DAYS + 1) * (YEARS / DAYS)
    prices = spot * np.exp((RATE - VOLATILITY**2 / 2) * days + walk)
    return np.exp(-RATE * YEARS) * np.maximum(prices.mean(axis=1) - STRIKE, 0)


def program(spot, normals):
    walk = VOLATILITY * np.sqrt(YEARS / DAYS) * np.cumsum(normals, axis=1)
    paid = payoffs(walk, spot)
    return paid.mean(), paid.std(ddof=1) / np.sqrt(len(paid))


def value(spot, normals):
    return program(spot, normals)[0]


def gradient(spot, normals):
    """The delta, pathwise: the payoff of a path is homogeneous in its prices above the strike."""
    walk = VOLATILITY * np.sqrt(YEARS / DAYS) * np.cumsum(normals, axis=1)
    paid = payoffs(walk, spot)
    discount = np.exp(-RATE * YEARS)
    return np.where(paid > 0, (paid + discount * STRIKE) / spot, 0).mean()


def arguments(rng):
    return np.array(101.0), rng.standard_normal((500, DAYS))
