"""Kalman filter: one step, in which a body that moves in the plane is seen at a place."""

import numpy as np


def program(mean, covariance, seen, motion, motion_noise, sight, sight_noise):
    mean = motion @ mean
    covariance = motion @ covariance @ motion.T + motion_noise
    spread = sight @ covariance @ sight.T + sight_noise
    gain = covariance @ sight.T @ np.linalg.inv(spread)
    mean = mean + gain @ (seen - sight @ mean)
    return mean, (np.eye(len(mean)) - gain @ sight) @ covariance


def changed(mean, covariance, seen, motion, motion_noise, sight, sight_noise):
    mean = motion @ mean
    covariance = motion @ covariance @ motion.T + motion_noise
    spread = sight @ covariance @ sight.T + sight_noise
    (a, b), (c, d) = [[spread[i, j] for j in range(2)] for i in range(2)]
    inverse = np.stack([d, -b, -c, a]).reshape(2, 2) / (a * d - b * c)
    gain = covariance @ sight.T @ inverse
    mean = mean + gain @ (seen - sight @ mean)
    return mean, (np.eye(len(mean)) - gain @ sight) @ covariance


def arguments(rng):
    motion = np.eye(4) + 0.1 * np.eye(4, k=2)
    sight = np.eye(2, 4)
    noises = 0.01 * np.eye(4), np.array([[0.2, 0.05], [0.05, 0.1]])
    return (
        rng.normal(size=4),
        np.eye(4),
        rng.normal(size=2),
        motion,
        noises[0],
        sight,
        noises[1],
    )
