"""Mandelbrot set: after how many turns the points of a part of the plane leave."""

import numpy as np

TURNS = 10


def program(re, im):
    c = re + 1j * im[:, None]
    z = np.zeros_like(c)
    turns = np.zeros(c.shape, int)
    for _ in range(TURNS):
        inside = np.abs(z) <= 2
        z = np.where(inside, z**2 + c, z)
        turns += inside
    return turns


def changed(re, im):
    im = im[:, None]
    x, y = np.zeros((2, im.size, re.size))
    turns = np.zeros(x.shape, int)
    for _ in range(TURNS):
        inside = x * x + y * y <= 4
        x, y = np.where(inside, x * x - y * y + re, x), np.where(inside, 2 * x * y + im, y)
        turns += inside
    return turns


def arguments(rng):
    return np.linspace(-2.1, 0.6, 31), np.linspace(-1.2, 1.2, 23)
