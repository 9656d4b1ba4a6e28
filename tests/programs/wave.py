"""Wave equation: a plucked square membrane, clamped at its edge, by leapfrog steps."""

import numpy as np

STEPS = 3
COURANT = 0.5


def program(now, before):
    for _ in range(STEPS):
        after = np.zeros_like(now)
        after[1:-1, 1:-1] = (
            2 * now[1:-1, 1:-1]
            - before[1:-1, 1:-1]
            + COURANT**2
            * (
                now[2:, 1:-1]
                + now[:-2, 1:-1]
                + now[1:-1, 2:]
                + now[1:-1, :-2]
                - 4 * now[1:-1, 1:-1]
            )
        )
        now, before = after, now
    return now


def value(now, before):
    return (program(now, before) ** 2).sum() / 2


def gradient(now, before):
    """With respect to the shape at the start: the steps are linear, and each its own adjoint."""
    ahead = program(now, before)
    adjoint, old = ahead, np.zeros_like(ahead)
    for _ in range(STEPS):
        inner = np.pad(adjoint[1:-1, 1:-1], 1)
        spread = COURANT**2 * (
            np.roll(inner, 1, 0)
            + np.roll(inner, -1, 0)
            + np.roll(inner, 1, 1)
            + np.roll(inner, -1, 1)
            - 4 * inner
        )
        adjoint, old = 2 * inner + spread + old, -inner
    return adjoint


def arguments(rng):
    x = np.linspace(0, np.pi, 12)
    start = np.sin(x)[:, None] * np.sin(2 * x)
    start[[0, -1]] = start[:, [0, -1]] = 0
    return start, start
