"""A network of two layers learns which breast tumors are malignant, from 30 measured features.

    python samples/mlp.py                    train; print the accuracy on held-out patients
    python samples/mlp.py --save curve.png   and draw how it was learned

`step` is a training step as you would write it with NumPy. Compiled, it is one graph: the loss,
its gradient, and Adam over all parameters, fused into a few kernels that run in one call.
"""

import argparse
import time

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.datasets import load_breast_cancer

import graphc
from graphc import nn, optim

HIDDEN, BATCH = 10, 32


def network(params, x):
    hidden = nn.relu(x @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def loss(params, x, y):
    logits = network(params, x)
    losses = nn.binary_cross_entropy_with_logits(logits, y)
    hits = (logits > 0) == (y > 0.5)
    return losses.mean(), hits.mean(dtype=np.float32)


@graphc.compile(donate=("params", "moments"))
def step(params, moments, x, y):
    (value, accuracy), grads = graphc.value_and_grad(loss, has_aux=True)(params, x, y)
    params, moments = optim.adam(params, grads, moments, learning_rate=0.01)
    return params, moments, value, accuracy


def initial(rng, features=30):
    w1 = rng.normal(0, np.sqrt(2 / features), (features, HIDDEN)).astype(np.float32)
    w2 = rng.normal(0, np.sqrt(1 / HIDDEN), HIDDEN).astype(np.float32)
    b1, b2 = np.zeros(HIDDEN, np.float32), np.zeros((), np.float32)
    return {"w1": w1, "b1": b1, "w2": w2, "b2": b2}


def data(rng, held_out=169):
    """The rows to train on and those held out, as (x, y); x is standardized on the former."""
    x, y = load_breast_cancer(return_X_y=True)
    order = rng.permutation(len(x))
    test, train = order[:held_out], order[held_out:]
    x = ((x - x[train].mean(0)) / x[train].std(0)).astype(np.float32)
    y = y.astype(np.float32)
    return (x[train], y[train]), (x[test], y[test])


def batches(x, y, rng):
    """All rows in a new order, BATCH at a time; the few that are left over wait their turn."""
    order = rng.permutation(len(x))
    for rows in order[: len(x) // BATCH * BATCH].reshape(-1, BATCH):
        yield x[rows], y[rows]


def specs():
    """The shapes for which `graphc compile samples/mlp.py` compiles, by function."""
    params = initial(np.random.default_rng(0))
    rows, labels = graphc.f32[BATCH, 30], graphc.f32[BATCH]
    return {"step": (params, optim.adam_init(params), rows, labels)}


def train(epochs=60, target="auto", seed=0, show=True):
    """Returns the held-out accuracy, and [loss, accuracy] of every epoch's training rows."""
    rng = np.random.default_rng(seed)
    (x, y), held_out = data(rng)
    params = initial(rng)
    moments = optim.adam_init(params)
    compiled, test = graphc.compile(step, target=target), graphc.compile(loss, target=target)
    history = []
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, disable=not show) as progress:
        bar = progress.add_task("compiling", total=epochs)
        for _ in range(epochs):
            seen = []
            for batch in batches(x, y, rng):
                params, moments, value, accuracy = compiled(params, moments, *batch)
                seen.append((float(value), float(accuracy)))
            history.append(np.mean(seen, axis=0))
            words = "loss {:.4f}  accuracy {:.1%}".format(*history[-1])
            progress.update(bar, advance=1, description=words)
    return float(test(params, *held_out)[1]), np.array(history)


def draw(history, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot(history, label=["loss", "accuracy"])
    axes.set_xlabel("epoch")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="auto", help="cpu, cuda or auto (the default)")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--save", metavar="PNG", help="draw loss and accuracy into this file")
    args = parser.parse_args()
    start = time.perf_counter()
    accuracy, history = train(args.epochs, args.target)
    print(f"{accuracy:.1%} of the held-out rows in {time.perf_counter() - start:.1f} s")
    if args.save:
        draw(history, args.save)
        print(f"wrote {args.save}")
