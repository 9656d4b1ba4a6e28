"""Composites: what models are written with, as compositions of the primitive ops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import Type, i64
from graphc.errors import ShapeError, TypeMismatch
from graphc.kinds import check_axes, composite, computed_wide, extreme, is_half
from graphc.ops import elementwise as ew
from graphc.ops.creation import iota
from graphc.ops.reductions import along, broadcast, reduce_max, reduce_sum
from graphc.ops.views import stop_gradient

Ints = tuple[int, ...]

# --- activations --------------------------------------------------------------------------
# Their derivatives are ops: those of the expansions overflow (0 * inf), or have nothing left of
# 1 - sigmoid(x) where sigmoid(x) rounds to 1. Factors are bounded where what they multiply is 0 to
# the last bit, so that an infinity does not meet it.


def _activation(name: str, doc: str, expand: Any, numpy: Any, slope: Any = None) -> Any:
    """A function of one array; `slope` gives its derivative in one op, if it has one."""
    vjp = slope and (lambda g, out, x: (g * slope(x),))
    return composite(
        name, doc, operands=("x",), expand=expand, numpy=numpy, vjp=vjp, half_vjp=bool(slope)
    )


def _bounded(x: Any, size: float) -> Any:
    """x between -size and size."""
    return ew.minimum(ew.maximum(x, -size), size)


def _numpy_sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _sigmoid(x: Any) -> Any:
    e = ew.exp(-abs(x))
    return ew.where(ew.ge(x, 0), 1, e) / (1 + e)


# Its own derivative is not out * (1 - 2 * sigmoid(x)), which cancels near 0.
sigmoid_slope = composite(
    "sigmoid_slope",
    "sigmoid(x) * sigmoid(-x), the derivative of sigmoid.",
    operands=("x",),
    expand=lambda x: ew.bell(ew.exp(-abs(x))),
    numpy=lambda x: _numpy_sigmoid(x) * _numpy_sigmoid(-x),
    vjp=lambda g, out, x: (-g * ew.tanh(0.5 * x) * out,),
)
sigmoid = _activation(
    "sigmoid",
    "1 / (1 + exp(-x)).",
    _sigmoid,
    lambda x: _numpy_sigmoid(x),
    slope=sigmoid_slope,
)
relu = _activation(
    "relu",
    "The larger of x and 0; nan stays nan, and the gradient at 0 is 0.",
    lambda x: ew.where(ew.le(x, 0), 0, x),
    lambda x: np.maximum(x, 0),
)
softplus = _activation(
    "softplus",
    "log(1 + exp(x)).",
    lambda x: ew.maximum(x, 0) + ew.log1p(ew.exp(-abs(x))),
    lambda x: np.logaddexp(x, 0),
    slope=sigmoid,
)

_FLAT = 800.0
"""exp(-x) is 0 from here on, in every dtype."""


def _numpy_silu_slope(x: Any) -> Any:
    s = _numpy_sigmoid(x)
    return s + np.clip(x, -_FLAT, _FLAT) * s * _numpy_sigmoid(-x)


silu_slope = _activation(
    "silu_slope",
    "The derivative of silu.",
    lambda x: sigmoid(x) + _bounded(x, _FLAT) * sigmoid_slope(x),
    _numpy_silu_slope,
)
silu = _activation(
    "silu",
    "x * sigmoid(x), also called swish.",
    lambda x: ew.maximum(x, -_FLAT) * sigmoid(x),
    lambda x: np.maximum(x, -_FLAT) * _numpy_sigmoid(x),
    slope=silu_slope,
)

_FAR = 40.0
"""The normal distribution's cumulative function and density are 0 from here on."""


def _normal(x: Any) -> Any:
    """The cumulative function of the normal distribution, of a bounded argument."""
    return 0.5 * ew.erfc(-math.sqrt(0.5) * x)


def _gelu_slope(x: Any) -> Any:
    b = _bounded(x, _FAR)
    density = 1 / math.sqrt(2 * math.pi) * ew.exp(-0.5 * (b * b))
    return _normal(b) + b * density


def _numpy_normal(x: Any) -> Any:
    return ew.erfc.numpy(x.astype(np.float64) * -math.sqrt(0.5)) / 2


def _numpy_gelu_slope(x: Any) -> Any:
    b = np.clip(x, -_FAR, _FAR)
    density = np.exp(-np.square(b) / 2) / math.sqrt(2 * math.pi)
    return (_numpy_normal(b) + b * density).astype(x.dtype)


gelu_slope = _activation(
    "gelu_slope", "The derivative of gelu.", _gelu_slope, _numpy_gelu_slope
)
gelu = _activation(
    "gelu",
    "x times the normal distribution's cumulative function (Hendrycks and Gimpel, 2016).",
    lambda x: ew.maximum(x, -_FAR) * _normal(_bounded(x, _FAR)),
    lambda x: (np.maximum(x, -_FAR) * _numpy_normal(x)).astype(x.dtype),
    slope=gelu_slope,
)

_SATURATED = 25.0
"""The sigmoid in gelu_tanh is 0 from here on, in every dtype."""
_TWICE = 2 * math.sqrt(2 / math.pi)
_CUBE = 0.044715


def _twice(x: Any) -> Any:
    """The argument of the sigmoid in gelu_tanh, which is twice that of its tanh."""
    return _TWICE * (x + _CUBE * (x * x * x))


def _gelu_tanh_slope(x: Any) -> Any:
    b = _bounded(x, _SATURATED)
    twice = _twice(b)
    return sigmoid(twice) + b * sigmoid_slope(twice) * (_TWICE * (1 + 3 * _CUBE * (b * b)))


def _numpy_gelu_tanh(x: Any) -> Any:
    twice = _twice(np.clip(x, -_SATURATED, _SATURATED))
    return np.maximum(x, -_SATURATED) * _numpy_sigmoid(twice)


def _numpy_gelu_tanh_slope(x: Any) -> Any:
    b = np.clip(x, -_SATURATED, _SATURATED)
    s = _numpy_sigmoid(_twice(b))
    return s * (1 + b * _numpy_sigmoid(-_twice(b)) * (_TWICE + 3 * _TWICE * _CUBE * b**2))


gelu_tanh_slope = _activation(
    "gelu_tanh_slope",
    "The derivative of gelu_tanh.",
    _gelu_tanh_slope,
    _numpy_gelu_tanh_slope,
)
gelu_tanh = _activation(
    "gelu_tanh",
    "gelu in its approximation by tanh (Hendrycks and Gimpel, 2016).",
    lambda x: ew.maximum(x, -_SATURATED) * sigmoid(_twice(_bounded(x, _SATURATED))),
    _numpy_gelu_tanh,
    slope=gelu_tanh_slope,
)

# --- by exponentials ------------------------------------------------------------------------


# By half the angle: no power of e overflows where the function does not.
def _sinh(x: Any) -> Any:
    half = 0.5 * x
    up, down = ew.expm1(half), ew.expm1(-half)
    # Near 0 it is x to the last bit, and half of a subnormal is not exact.
    near = ew.lt(abs(half), 0.5 * x.type.dtype.eps**0.5)
    return ew.where(near, x, 0.5 * (up - down) * (up + down + 2))


def _cosh(x: Any) -> Any:
    half = 0.5 * x
    rise = ew.expm1(half) - ew.expm1(-half)
    return 1 + 0.5 * rise * rise


# Each is the other's derivative; those of the expansions overflow before it does.
sinh = _activation(
    "sinh",
    "Hyperbolic sine, accurate near 0.",
    _sinh,
    np.sinh,
    slope=lambda x: cosh(x),
)
cosh = _activation(
    "cosh",
    "Hyperbolic cosine, accurate near 0.",
    _cosh,
    np.cosh,
    slope=sinh,
)


def _apart(x: Any, y: Any) -> Any:
    """x - y, or 0 where both are the same infinity."""
    return ew.where(ew.eq(x, y) & ew.eq(abs(x), math.inf), 0, x - y)


def _logaddexp_vjp(g: Any, out: Any, x: Any, y: Any) -> Any:
    apart = _apart(x, y)
    return g * sigmoid(apart), g * sigmoid(-apart)


def _logaddexp_type(x: Type, y: Type) -> Type:
    if x != y:
        raise TypeMismatch(
            "logaddexp: the operands must have one type", values=[("x", x), ("y", y)]
        )
    return x.with_shape(x.shape)


logaddexp = composite(
    "logaddexp",
    "log(exp(x) + exp(y)), without overflow.",
    operands=("x", "y"),
    expand=lambda x, y: ew.maximum(x, y) + ew.log1p(ew.exp(-abs(_apart(x, y)))),
    numpy=np.logaddexp,
    vjp=_logaddexp_vjp,
    result=_logaddexp_type,
)

# --- softmax and its kin ------------------------------------------------------------------


def _shifted(x: Any, axes: Ints) -> Any:
    """x less its largest element; the shift changes no result, hence no gradient."""
    return x - along(stop_gradient(reduce_max(x, axes=axes)), x, axes)


def _softmax(x: Any, axes: Ints) -> Any:
    e = ew.exp(_shifted(x, axes))
    return e * along(1 / reduce_sum(e, axes=axes), x, axes)


def _softmax_vjp(g: Any, out: Any, x: Any, axes: Ints) -> Any:
    if is_half(out):
        return (_rounded_softmax_grad(g, out, axes=axes),)
    return (out * (g - along(reduce_sum(g * out, axes=axes), x, axes)),)


@computed_wide
def _rounded_softmax_grad(g: Any, out: Any, axes: Ints) -> Any:
    """By weights that were rounded, and whose sum is no longer 1.

    Over their sum they are a softmax again: where one is almost 1, what remains of its gradient is
    right to the digits that the others have. (Weights in f32 would be kept beside the rounded
    ones from the forward pass to the backward pass, at twice their bytes.)
    """
    mean = reduce_sum(g * out, axes=axes) / reduce_sum(out, axes=axes)
    return out * (g - along(mean, out, axes))


def _log_softmax_vjp(g: Any, out: Any, x: Any, axes: Ints) -> Any:
    return (g - ew.exp(out) * along(reduce_sum(g, axes=axes), x, axes),)


def _log_softmax(x: Any, axes: Ints) -> Any:
    z = _shifted(x, axes)
    return z - along(ew.log(reduce_sum(ew.exp(z), axes=axes)), x, axes)


def _finite_max(x: Any, axes: Ints) -> Any:
    """The largest element, or 0 where it is infinite: inf - inf is to be kept out."""
    m = stop_gradient(reduce_max(x, axes=axes))
    return ew.where(ew.eq(abs(m), math.inf), 0, m)


def _logsumexp(x: Any, axes: Ints) -> Any:
    m = _finite_max(x, axes)
    return ew.log(reduce_sum(ew.exp(x - along(m, x, axes)), axes=axes)) + m


def _numpy_log_softmax(x: Any, axes: Ints) -> Any:
    z = x - np.max(x, axis=axes, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=axes, keepdims=True))


def _numpy_softmax(x: Any, axes: Ints) -> Any:
    e = np.exp(x - np.max(x, axis=axes, keepdims=True))
    return e / np.sum(e, axis=axes, keepdims=True)


def _numpy_logsumexp(x: Any, axes: Ints) -> Any:
    return np.logaddexp.reduce(x, axis=axes)


def _softmax_type(name: str) -> Callable[..., Type]:
    def result(x: Type, axes: Ints) -> Type:
        check_axes(name, axes, x, needs_elements=True)
        return x.with_shape(x.shape)

    return result


def _logsumexp_type(x: Type, axes: Ints) -> Type:
    check_axes("logsumexp", axes, x, needs_elements=True)
    return x.with_shape(tuple(d for a, d in enumerate(x.shape) if a not in axes))


_ROWS: tuple[dict[str, Any], ...] = ({"axes": (1,)}, {"axes": (0,)})

softmax = composite(
    "softmax",
    "exp(x) divided by its sum along axes.",
    operands=("x",),
    attrs=("axes",),
    expand=_softmax,
    vjp=_softmax_vjp,
    half_vjp=True,
    numpy=_numpy_softmax,
    result=_softmax_type("softmax"),
    samples=_ROWS,
)
log_softmax = composite(
    "log_softmax",
    "Logarithm of softmax, without forming it.",
    operands=("x",),
    attrs=("axes",),
    expand=_log_softmax,
    vjp=_log_softmax_vjp,
    numpy=lambda x, axes: _numpy_log_softmax(x, axes),
    result=_softmax_type("log_softmax"),
    samples=_ROWS,
)
logsumexp = composite(
    "logsumexp",
    "log of the sum of exp(x) along axes.",
    operands=("x",),
    attrs=("axes",),
    expand=_logsumexp,
    numpy=_numpy_logsumexp,
    result=_logsumexp_type,
    samples=_ROWS,
)

# --- normalization and losses -------------------------------------------------------------


def _layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    """By the corrected two-pass algorithm (Chan, Golub and LeVeque, 1983)."""
    n = len(x.shape)
    axes = tuple(range(n - len(weight.shape), n))
    size = math.prod(x.shape[a] for a in axes)
    off = x - along(reduce_sum(x, axes=axes) / size, x, axes)
    # What the mean was rounded by. But for rounding it is 0, and so is its gradient.
    rest = stop_gradient(reduce_sum(off, axes=axes) / size)
    square = reduce_sum(off * off, axes=axes) / size
    variance = square - stop_gradient(ew.minimum(rest * rest, square))
    scale = along(ew.rsqrt(variance + eps), x, axes)
    w, b = (broadcast(v, shape=x.shape, dims=axes) for v in (weight, bias))
    return (off - along(rest, x, axes)) * scale * w + b


def _numpy_layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    axes = tuple(range(x.ndim - weight.ndim, x.ndim))
    mean, var = np.mean(x, axes, keepdims=True), np.var(x, axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * weight + bias


def _layer_norm_type(x: Type, weight: Type, bias: Type, eps: float) -> Type:
    shown = [("x", x), ("weight", weight), ("bias", bias)]
    n = x.ndim - weight.ndim
    if n < 0 or x.shape[n:] != weight.shape or weight.shape != bias.shape:
        raise ShapeError("layer_norm: weight and bias must have x's last axes", values=shown)
    if not x.dtype == weight.dtype == bias.dtype:
        raise TypeMismatch("layer_norm: the operands must have one dtype", values=shown)
    if not weight.is_static:
        raise ShapeError("layer_norm: the last axes must have known sizes", values=shown)
    return x.with_shape(x.shape)


layer_norm = composite(
    "layer_norm",
    "x less its mean, over its deviation, times weight plus bias (Ba et al., 2016).",
    operands=("x", "weight", "bias"),
    attrs=("eps",),
    expand=_layer_norm,
    numpy=_numpy_layer_norm,
    result=_layer_norm_type,
    samples=({"eps": 1e-5, "shapes": ((4, 6), (6,), (6,))},),
)


def _cross_entropy(logits: Any, labels: Any) -> Any:
    """Row by row: the logarithm of the sum of exponentials less the label's own logit."""
    axes = (len(logits.shape) - 1,)
    classes = logits.shape[-1]
    if classes > extreme(labels.type.dtype, largest=True):
        labels = ew.cast(labels, dtype=i64)
    column = iota(dtype=labels.type.dtype, shape=logits.shape, axis=axes[0])
    z = _shifted(logits, axes)
    own = ew.where(ew.eq(column, along(labels, logits, axes)), z, 0)
    loss = ew.log(reduce_sum(ew.exp(z), axes=axes)) - reduce_sum(own, axes=axes)
    return ew.where(ew.ge(labels, 0) & ew.lt(labels, classes), loss, 0)


def _numpy_cross_entropy(logits: Any, labels: Any) -> Any:
    log_p = _numpy_log_softmax(logits, (logits.ndim - 1,))
    known = (labels >= 0) & (labels < logits.shape[-1])
    at = np.where(known, labels, 0).astype(np.int64)
    return np.where(known, -np.take_along_axis(log_p, at[..., None], -1)[..., 0], 0)


def _cross_entropy_type(logits: Type, labels: Type) -> Type:
    name, shown = "softmax_cross_entropy", [("logits", logits), ("labels", labels)]
    if not labels.dtype.is_integer:
        raise TypeMismatch(f"{name} takes integer labels", values=shown)
    if not logits.ndim or labels.shape != logits.shape[:-1] or logits.shape[-1] == 0:
        raise ShapeError(
            f"{name}: labels must have the shape of logits but for the last axis, which must "
            "have elements",
            values=shown,
        )
    return logits.with_shape(logits.shape[:-1])


def _binary_cross_entropy_type(logits: Type, targets: Type) -> Type:
    if logits != targets:
        raise TypeMismatch(
            "sigmoid_binary_cross_entropy: the operands must have one type",
            values=[("logits", logits), ("targets", targets)],
        )
    return logits.with_shape(logits.shape)


softmax_cross_entropy = composite(
    "softmax_cross_entropy",
    "Minus log of the probability that softmax over the last axis gives to each label; 0, and "
    "no gradient, for a label that is none of the classes.",
    operands=("logits", "labels"),
    expand=_cross_entropy,
    numpy=_numpy_cross_entropy,
    result=_cross_entropy_type,
    samples=(
        {"shapes": ((4, 5), (4,)), "integers": {"labels": (0, 5)}},
        {"shapes": ((9, 3), (9,)), "integers": {"labels": (-2, 5)}},
    ),
)
binary_cross_entropy = composite(
    "sigmoid_binary_cross_entropy",
    "Cross-entropy of sigmoid(logits) with targets in [0, 1], without overflow.",
    operands=("logits", "targets"),
    expand=lambda x, t: ew.maximum(x, 0) - x * t + ew.log1p(ew.exp(-abs(x))),
    numpy=lambda x, t: np.logaddexp(x, 0) - x * t,
    vjp=lambda g, out, x, t: (g * ((1 - t) * sigmoid(x) - t * sigmoid(-x)), -(g * x)),
    result=_binary_cross_entropy_type,
    samples=({"shapes": ((4,), (4,)), "domains": ((-4.0, 4.0), (0.0, 1.0))},),
)
