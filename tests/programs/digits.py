"""Digits classifier: softmax regression on images of bytes, its loss and its accuracy."""

import numpy as np

CLASSES = 10


def log_probabilities(weights, bias, images):
    pixels = images.reshape(len(images), -1) / 255
    scores = pixels @ weights + bias
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def program(weights, bias, images, labels):
    logs = log_probabilities(weights, bias, images)
    loss = -logs[np.arange(len(labels)), labels].mean()
    return loss, (logs.argmax(axis=1) == labels).mean()


def value(weights, bias, images, labels):
    return program(weights, bias, images, labels)[0]


def gradient(weights, bias, images, labels):
    """Of the loss with respect to the weights."""
    pixels = images.reshape(len(images), -1) / 255
    wrong = np.exp(log_probabilities(weights, bias, images)) - np.eye(CLASSES)[labels]
    return pixels.T @ wrong / len(labels)


def arguments(rng):
    images = rng.integers(0, 256, (40, 8, 8), np.uint8)
    labels = rng.integers(0, CLASSES, 40)
    return 0.1 * rng.normal(size=(64, CLASSES)), rng.normal(size=CLASSES), images, labels
