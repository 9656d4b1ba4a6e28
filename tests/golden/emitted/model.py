"""What the files beside this one were compiled from."""

import numpy as np

import graphc
from graphc import nn, optim
from graphc.dtypes import f32, i64


@graphc.compile
def softmax(x: f32[64, 1000]):
    top = np.max(x, axis=-1, keepdims=True)
    e = np.exp(x - top)
    return e / np.sum(e, axis=-1, keepdims=True)


@graphc.compile
def layer_norm(x: f32[64, 1000], scale: f32[1000], shift: f32[1000]):
    return nn.layer_norm(x, (1000,), scale, shift)


@graphc.compile
def bias_gelu(x: f32[32, 96], b: f32[96]):
    h = x + b
    return nn.gelu(h)


@graphc.compile
def embedding(table: f32[50, 16], words: i64[8]):
    return np.take(table, words, axis=0) * 2


@graphc.compile
def dense(x: f32[32, 30], w: f32[30, 10], b: f32[10]):
    return np.maximum(x @ w + b, 0)


@graphc.compile
def adam(params, grads, state):
    params, state = optim.adam(params, grads, state)
    return params, state.mean, state.square


def loss(params, x, y):
    hidden = nn.relu(x @ params["w"] + params["b"])
    logits = hidden @ params["v"]
    return nn.binary_cross_entropy_with_logits(logits, y).mean()


@graphc.compile
def step(params, state, x, y):
    value, grads = graphc.value_and_grad(loss)(params, x, y)
    params, state = optim.adam(params, grads, state)
    return params, state, value


def classifier_loss(params, x, labels):
    logits = x @ params["w"] + params["b"]
    return nn.softmax_cross_entropy(logits, labels).mean()


@graphc.compile
def train_step(params, state, x, labels):
    value, grads = graphc.value_and_grad(classifier_loss)(params, x, labels)
    return value, *optim.adam(params, grads, state)


def specs():
    tree = {"w": f32[30, 10], "b": f32[10]}
    three = {**tree, "v": f32[10]}
    wide = {"w": f32[40, 16], "b": f32[16]}
    return {
        "adam": (tree, tree, optim.AdamState(f32[()], tree, tree)),
        "step": (three, optim.AdamState(f32[()], three, three), f32[32, 30], f32[32]),
        "train_step": (wide, optim.AdamState(f32[()], wide, wide), f32[96, 40], i64[96]),
    }


@graphc.compile
def long_softmax(x: f32[1024, 50000]):
    return nn.softmax(x)
