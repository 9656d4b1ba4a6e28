"""Ordinary least squares, with standard errors of the coefficients by the bootstrap."""

import numpy as np

DRAWS = 20


def program(x, y, rows):
    def fit(x, y):
        return np.linalg.solve(x.T @ x, x.T @ y)

    coefficients = fit(x, y)
    draws = np.array([fit(x[chosen], y[chosen]) for chosen in rows])
    residuals = y - x @ coefficients
    r_squared = 1 - (residuals**2).sum() / ((y - y.mean()) ** 2).sum()
    return coefficients, draws.std(axis=0, ddof=1), r_squared


def changed(x, y, rows):
    def fit(x, y):
        """Conjugate gradients, which end after as many steps as there are coefficients."""
        gram, right = np.einsum("...ni,...nj->...ij", x, x), np.einsum("...ni,...n->...i", x, y)
        at, rest, toward = np.zeros_like(right), right, right
        for _ in range(x.shape[-1]):
            turned = np.einsum("...ij,...j->...i", gram, toward)
            size = (rest**2).sum(axis=-1, keepdims=True)
            step = size / (toward * turned).sum(axis=-1, keepdims=True)
            at, rest = at + step * toward, rest - step * turned
            toward = rest + (rest**2).sum(axis=-1, keepdims=True) / size * toward
        return at

    coefficients = fit(x, y)
    draws = fit(x[rows], y[rows])
    residuals = y - x @ coefficients
    r_squared = 1 - (residuals**2).sum() / ((y - y.mean()) ** 2).sum()
    return coefficients, draws.std(axis=0, ddof=1), r_squared


def arguments(rng):
    n = 60
    x = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    y = x @ [2.0, -1.0, 0.5] + 0.3 * rng.normal(size=n)
    return x, y, rng.integers(0, n, size=(DRAWS, n))
