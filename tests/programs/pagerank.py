"""PageRank: the power method on the links between pages, until the ranks stand still."""

import numpy as np

DAMPING, TOLERANCE = 0.85, 1e-10


def step(links, ranks):
    outgoing = links.sum(axis=1)
    shared = np.where(outgoing > 0, ranks / np.maximum(outgoing, 1), 0)
    dangling = ranks[None, :] @ (outgoing == 0)
    return (1 - DAMPING) / len(links) + DAMPING * (shared @ links + dangling / len(links))


def program(links):
    ranks = np.full(len(links), 1 / len(links))
    while True:
        before, ranks = ranks, step(links, ranks)
        if np.abs(ranks - before).sum() < TOLERANCE:
            return ranks


def changed(links):
    ranks = np.full(len(links), 1 / len(links))
    for _ in range(60):
        ranks = step(links, ranks)
    return ranks


def arguments(rng):
    links = rng.random((16, 16)) < 0.2
    links[3] = False
    return (links,)
