"""k-means: one step of Lloyd's algorithm, and the inertia before it."""

import numpy as np


def program(points, centers):
    distances = np.linalg.norm(points[:, None] - centers, axis=-1)
    nearest = distances.argmin(axis=1)
    moved = np.array([points[nearest == k].mean(axis=0) for k in range(len(centers))])
    return moved, (distances.min(axis=1) ** 2).sum()


def changed(points, centers):
    distances = np.sqrt(((points[:, None] - centers) ** 2).sum(axis=-1))
    nearest = distances.argmin(axis=1)
    belongs = nearest[:, None] == np.arange(len(centers))
    moved = belongs.T @ points / belongs.sum(axis=0)[:, None]
    return moved, (distances.min(axis=1) ** 2).sum()


def arguments(rng):
    centers = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    points = np.repeat(centers, 15, axis=0) + rng.normal(size=(45, 2))
    return points, centers + 0.5
