"""What neural networks are written with, by torch.nn.functional's names and signatures.

The functions take traced and concrete arrays; losses are per row or per element, to be averaged
by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from numpy.typing import ArrayLike, NDArray

from graphc.dtypes import DType
from graphc.errors import ArgumentError, ShapeError, TypeMismatch
from graphc.functions.products import matmul
from graphc.functions.promote import (
    array,
    astype,
    common_dtype,
    elementwise,
    full,
    label,
    labels,
)
from graphc.functions.reductions import mean
from graphc.functions.shapes import Axes, as_axes, as_shape, reshape, transpose
from graphc.ops import composite
from graphc.ops import elementwise as ew
from graphc.tracing import public

__all__ = [
    "binary_cross_entropy_with_logits",
    "gelu",
    "layer_norm",
    "linear",
    "log_softmax",
    "logsumexp",
    "mse",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "tanh",
]

_F = TypeVar("_F", bound=Callable[..., Any])


def __dir__() -> list[str]:
    """What is for users, and not what the module imports."""
    return sorted(__all__)


def _exported(function: _F) -> _F:
    return public(f"graphc.nn.{function.__name__}", function)


def _floating(name: str, x: Any) -> Any:
    """`x` as a traced array of floats; raises TypeMismatch for other dtypes."""
    x = array(x)
    if not x.type.dtype.is_float:
        raise TypeMismatch(
            f"{name} takes floats",
            values=[(label(x, "x"), x.type)],
            help="convert with .astype(np.float32)",
        )
    return x


# --- activations --------------------------------------------------------------------------


@_exported
def relu(x: ArrayLike) -> NDArray[Any]:
    """The larger of x and 0, of x's shape and float dtype; the gradient at 0 is 0."""
    return composite.relu(_floating("relu", x))


@_exported
def sigmoid(x: ArrayLike) -> NDArray[Any]:
    """1 / (1 + exp(-x)), of x's shape and float dtype."""
    return composite.sigmoid(_floating("sigmoid", x))


@_exported
def silu(x: ArrayLike) -> NDArray[Any]:
    """x * sigmoid(x), of x's shape and float dtype."""
    return composite.silu(_floating("silu", x))


@_exported
def gelu(x: ArrayLike, approximate: str = "none") -> NDArray[Any]:
    """x times the normal distribution's cumulative function; `approximate` may be "tanh"."""
    forms = {"none": composite.gelu, "tanh": composite.gelu_tanh}
    if not isinstance(approximate, str) or approximate not in forms:
        raise ArgumentError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    return forms[approximate](_floating("gelu", x))


@_exported
def softplus(x: ArrayLike) -> NDArray[Any]:
    """log(1 + exp(x)) without overflow, of x's shape and float dtype."""
    return composite.softplus(_floating("softplus", x))


@_exported
def tanh(x: ArrayLike) -> NDArray[Any]:
    """Hyperbolic tangent, of x's shape and float dtype."""
    return ew.tanh(_floating("tanh", x))


# --- softmax and its kin ------------------------------------------------------------------


def _with_axes(name: str, x: Any, axis: Axes) -> tuple[Any, tuple[int, ...]]:
    x = _floating(name, x)
    axes = as_axes(axis, x.ndim)
    if not all(x.shape[a] for a in axes):
        raise ShapeError(
            f"{name} of an empty axis has no value", values=[(label(x, "x"), x.type)]
        )
    return x, axes


@_exported
def softmax(x: ArrayLike, axis: Axes = -1) -> NDArray[Any]:
    """exp(x) divided by its sum along `axis`, of x's shape and float dtype."""
    x, axes = _with_axes("softmax", x, axis)
    return composite.softmax(x, axes=axes)


@_exported
def log_softmax(x: ArrayLike, axis: Axes = -1) -> NDArray[Any]:
    """Logarithm of softmax along `axis`, of x's shape and float dtype."""
    x, axes = _with_axes("log_softmax", x, axis)
    return composite.log_softmax(x, axes=axes)


@_exported
def logsumexp(x: ArrayLike, axis: Axes = None, keepdims: bool = False) -> NDArray[Any]:
    """Logarithm of the sum of exp(x) along `axis` (by default all), without overflow."""
    t, axes = _with_axes("logsumexp", x, axis)
    result = composite.logsumexp(t, axes=axes)
    if not keepdims:
        return result
    return reshape(result, tuple(1 if a in axes else n for a, n in enumerate(t.shape)))


# --- layers -------------------------------------------------------------------------------


@_exported
def layer_norm(
    x: ArrayLike,
    normalized_shape: int | Sequence[int],
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
) -> NDArray[Any]:
    """x less its mean, over its deviation, along the last axes, times weight plus bias.

    `normalized_shape` is the shape of those axes, of weight and of bias. (Ba et al., 2016.)
    """
    t = _floating("layer_norm", x)
    shape = as_shape(normalized_shape)
    if not shape or t.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"layer_norm: x does not end in normalized_shape {list(shape)}",
            values=[(label(t, "x"), t.type)],
        )
    w = _like("weight", weight, 1, shape, t.type.dtype)
    b = _like("bias", bias, 0, shape, t.type.dtype)
    return composite.layer_norm(t, w, b, eps=float(eps))


def _like(name: str, given: Any, default: int, shape: tuple[int, ...], to: DType) -> Any:
    """A parameter of a layer in the layer's dtype; all `default` if it is not given."""
    if given is None:
        return full(shape, default, to)
    given = array(given)
    if given.shape != shape:
        raise ShapeError(
            f"layer_norm: {name} must have normalized_shape {list(shape)}",
            values=[(label(given, name), given.type)],
        )
    return astype(given, to)


@_exported
def linear(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> NDArray[Any]:
    """x @ weight.T + bias, for a weight of shape [outputs, inputs]."""
    t, w = array(x), array(weight)
    if w.ndim not in (1, 2) or not t.ndim or t.shape[-1] != w.shape[-1]:
        raise ShapeError(
            "linear: the last axis of x must equal that of weight [outputs, inputs]",
            values=zip(labels((t, w), ("x", "weight")), (t.type, w.type), strict=True),
        )
    product = matmul(t, transpose(w))
    if bias is None:
        return product
    b = array(bias)
    if b.shape != w.shape[:-1]:
        raise ShapeError(
            "linear: bias must have the outputs of weight [outputs, inputs]",
            values=[(label(w, "weight"), w.type), (label(b, "bias"), b.type)],
        )
    return elementwise(ew.add, product, b)


# --- losses -------------------------------------------------------------------------------


@_exported
def softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> NDArray[Any]:
    """Minus log of the probability that softmax over the last axis gives to each label.

    Logits are floats [..., classes], labels integers [...]; the result has the shape of the
    labels and the dtype of the logits. A label that is none of the classes (-1, say, of what is
    padded) has a loss of 0 and no gradient; in a mean over the rows it counts all the same.
    """
    x, y = _floating("softmax_cross_entropy", logits), array(labels)
    shown = [(label(x, "logits"), x.type), (label(y, "labels"), y.type)]
    if not y.type.dtype.is_integer:
        raise TypeMismatch("softmax_cross_entropy takes integer labels", values=shown)
    if not x.ndim or y.shape != x.shape[:-1]:
        raise ShapeError(
            "softmax_cross_entropy: labels must have the shape of logits but for the last axis",
            values=shown,
        )
    return composite.softmax_cross_entropy(x, y.as_strong(y.type.dtype) if y.weak else y)


@_exported
def binary_cross_entropy_with_logits(logits: ArrayLike, targets: ArrayLike) -> NDArray[Any]:
    """Cross-entropy of sigmoid(logits) with targets in [0, 1], element by element."""
    x, y = _floating("binary_cross_entropy_with_logits", logits), array(targets)
    if x.shape != y.shape:
        raise ShapeError(
            "binary_cross_entropy_with_logits: logits and targets must have one shape",
            values=[(label(x, "logits"), x.type), (label(y, "targets"), y.type)],
        )
    to = common_dtype([x, y]) if y.type.dtype.is_float else x.type.dtype
    return composite.binary_cross_entropy(astype(x, to), astype(y, to))


@_exported
def mse(predictions: ArrayLike, targets: ArrayLike) -> NDArray[Any]:
    """The mean of the squared differences of all elements, a scalar."""
    x, y = array(predictions), array(targets)
    if x.shape != y.shape:
        raise ShapeError(
            "mse: predictions and targets must have one shape",
            values=[(label(x, "predictions"), x.type), (label(y, "targets"), y.type)],
        )
    away = elementwise(ew.sub, x, y)
    return mean(elementwise(ew.mul, away, away))
