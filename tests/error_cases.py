"""What users do wrong: one file for each; its last statement raises."""

from __future__ import annotations

CASES = """
# matmul_shapes
def layer(x, w, b):
    h = x @ w + b
    return h
trace(layer, f32[64, 768], f32[3072, 768], f32[3072])

# matmul_of_scalar
def scale(x, c):
    return x @ c
trace(scale, f32[4, 4], f32[()])

# matmul_batched
def attention(q, k):
    scores = np.matmul(q, k)
    return scores
trace(attention, f32[2, 5, 4], f32[2, 5, 4])

# add_shapes
def residual(x, y):
    return np.tanh(x + y[:, 1:]) * 2
trace(residual, f32[8, 5], f32[8, 5])

# where_shapes
def choose(mask, x):
    return np.where(mask, x, 0.0)
trace(choose, bool[3], f32[4])

# underline_after_wide_characters
def f(größe, b):
    größe = größe * 2; größe = "日本語" and größe + b
    return größe
trace(f, f32[3], f32[4])

# underline_of_several_lines
def f(x, y):
    total = (np.exp(x)
             + y)
    return total
trace(f, f32[3], f32[4])

# underline_of_call_over_lines
def f(x, y):
    return np.concatenate(
        [x, y],
        axis=1,
    )
trace(f, f32[3, 2], f32[4, 2])

# error_in_nested_helper
def dense(x, w):
    return np.tanh(x @ w)

def model(x, params):
    for w in params:
        x = dense(x, w)
    return x
trace(model, f32[2, 3], [f32[3, 3], f32[4, 3]])

# dtype_not_stored
def f(x):
    return x + np.ones(3, dtype=np.complex64)
trace(f, f32[3])

# dtype_of_complex_constant
def f(x):
    return x * 1j
trace(f, f32[3])

# astype_unknown
def f(x):
    return x.astype(np.complex64)
trace(f, f32[3])

# bits_of_floats
def f(x, y):
    return x & y
trace(f, f32[3], i32[3])

# minus_of_booleans
def f(x, y):
    return (x > 0) - (y > 0)
trace(f, f32[3], f32[3])

# number_out_of_range
def f(x):
    return x + 300
trace(f, u8[3])

# number_of_many_digits
def f(x):
    return x - 10**5000
trace(f, f32[3])

# index_of_many_digits
def f(x):
    return x[-10**5000]
trace(f, f32[3])

# size_of_many_digits
def f(x):
    return x.reshape(10**5000)
trace(f, f32[3])

# spec_of_many_digits
f32[10**5000]

# spec_of_minus_many_digits
f32[4, -10**5000]

# axis_of_many_digits
def f(x):
    return x.sum(axis=10**5000)
trace(f, f32[3])

# argument_of_many_digits
graphc.compile(lambda x, n: x + n, target="cpu")(np.ones(2), 10**5000)

# power_of_int
def f(n):
    return n ** -1
trace(f, i64[3])

# string_operand
def f(x):
    return x + "1"
trace(f, f32[3])

# axis_out_of_range
def f(x):
    return x.mean(axis=2)
trace(f, f32[3, 4])

# axis_twice
def f(x):
    return np.sum(x, axis=(0, -2))
trace(f, f32[3, 4])

# axis_traced
def f(x, axis):
    return np.sum(x, axis=axis)
trace(f, f32[3, 4], 1)

# max_of_empty
def f(x):
    return x[:0].max()
trace(f, f32[3])

# reshape_size
def f(x):
    return x.reshape(7, -1)
trace(f, f32[3, 4])

# reshape_traced
def f(x, n):
    return x.reshape(n, 4)
trace(f, f32[3, 4], 3)

# reshape_order
def f(x):
    return np.reshape(x, (4, 3), order="A")
trace(f, f32[3, 4])

# transpose_axes
def f(x):
    return x.transpose(0, 2)
trace(f, f32[3, 4, 5])

# squeeze_axis
def f(x):
    return np.squeeze(x, axis=0)
trace(f, f32[3, 1])

# broadcast_to
def f(x):
    return np.broadcast_to(x, (4, 2))
trace(f, f32[3, 2])

# concatenate_shapes
def f(x, y):
    return np.concatenate([x, y, x], axis=1)
trace(f, f32[3, 2], f32[4, 2])

# stack_shapes
def f(x, y):
    return np.stack([x, y])
trace(f, f32[3], f32[4])

# pad_mode
def f(x):
    return np.pad(x, 1, mode="edges")
trace(f, f32[3])

# index_out_of_bounds
def f(x):
    last = x[:, 4]
    return last
trace(f, f32[3, 4])

# too_many_indices
def f(x):
    return x[0, 0, 0]
trace(f, f32[3, 4])

# index_by_mask
def f(x):
    return x[x > 0]
trace(f, f32[3])

# index_by_mask_of_other_size
def f(x):
    return x[0, [True, False]]
trace(f, f32[2, 3])

# index_by_float
def f(x):
    return x[1.5]
trace(f, f32[3])

# index_by_array_of_floats
def f(x):
    return x[:, np.array([])]
trace(f, f32[3, 4])

# index_by_traced_floats
def f(x, where):
    return x[where]
trace(f, f32[3], f32[2])

# index_by_string
def f(x):
    return x["a"]
trace(f, f32[3])

# index_by_two_ellipses
def f(x):
    return x[..., 0, ...]
trace(f, f32[3, 4])

# slice_traced
def f(x, i):
    return x[i : i + 2]
trace(f, f32[8], 3)

# take_out_of_bounds
def f(x):
    return np.take(x, [0, 5], axis=0)
trace(f, f32[3, 4])

# take_by_floats
def f(x, i):
    return np.take(x, i, axis=0)
trace(f, f32[3, 4], f32[2])

# einsum_sizes
def f(a, b):
    return np.einsum("ij,jk->ik", a, b)
trace(f, f32[3, 4], f32[5, 6])

# einsum_letters
def f(a):
    return np.einsum("ijk->i", a)
trace(f, f32[3, 4])

# einsum_output
def f(a, b):
    return np.einsum("ij,jk->iz", a, b)
trace(f, f32[3, 4], f32[4, 6])

# einsum_arrows
def f(a, b):
    return np.einsum("ij->->jk", a, b)
trace(f, f32[3, 4], f32[4, 6])

# einsum_order
def f(a, b, c):
    return np.einsum("ij,jk,kl", a, b, c, optimize=[(0, 1)])
trace(f, f32[3, 4], f32[4, 6], f32[6, 2])

# einsum_dots
def f(a, b):
    return np.einsum("...i,i->i", a, b)
trace(f, f32[3, 4], f32[4])

# pad_empty
def f(x):
    return np.pad(x, 1, mode="reflect")
trace(f, f32[0, 3])

# tensordot_axes
def f(a, b):
    return np.tensordot(a, b, axes=2)
trace(f, f32[3, 4], f32[4, 3])

# truth_value
def f(x):
    if x.sum() > 0:
        return x
    return -x
trace(f, f32[3])

# python_max
def f(x, y):
    return max(x.sum(), y)
trace(f, f32[3], 1.0)

# python_float
def f(x):
    return x * math.exp(x.mean())
trace(f, f32[3])

# range_of_traced
def f(x, n):
    for _ in range(n):
        x = x * 2
    return x
trace(f, f32[3], 4)

# item
def f(x):
    return x / x.max().item()
trace(f, f32[3])

# array_of_list
def f(x, y):
    return np.array([x.sum(), y.sum()])
trace(f, f32[3], f32[3])

# list_of_numbers
def f(x):
    return np.exp(x)
graphc.compile(f, target="cpu")([1.0, 2.0, 3.0])

# list_of_numbers_in_a_dict
def f(params):
    return params["b"].sum()
graphc.compile(f, target="cpu")({"b": [1.0, 2.0]})

# list_of_lists
def f(x, scale):
    return scale * np.asarray(x)
graphc.compile(f, target="cpu")([[1.0, 2.0], [3.0, 4.0]], 2.0)

# list_of_arrays
def f(*xs):
    return np.mean(xs[0])
graphc.compile(f, target="cpu")([np.ones(3), np.ones(3)])

# list_to_a_gradient
grad(lambda w: np.sum(w))([1.0, 2.0])

# index_concrete_array_by_floats
TABLE = np.arange(10.0)
def f(i):
    return TABLE[i]
trace(f, f32[3])

# concrete_dot
A = np.ones((3, 3))
def f(x):
    return A.dot(x)
trace(f, f64[4])

# r_
def f(x, y):
    return np.r_[x, y]
trace(f, f32[3], f32[4])

# zeros_of_traced_size
def f(n):
    return np.zeros(n) + 1
trace(f, 3)

# arange_of_traced
def f(n):
    return gnp.arange(n) * 2
trace(f, 3)

# assignment_to_element_of_argument
def f(x):
    x[0] = 1
    return x
trace(f, f32[3])

# assignment_by_mask_of_values
def f(x, v):
    y = x * 2
    y[x > 0] = v
    return y
trace(f, f32[3], f32[2])

# assignment_through_broadcast
def f(x):
    y = np.broadcast_to(x * 2, (2, 3))
    y[0] = 1
    return y
trace(f, f32[3])

# in_place_on_no_slice
def f(x):
    y = np.zeros((3, 4))
    part = y.reshape(-1)[::5]
    part += x
    return y
trace(f, f64[3])

# loop_over_a_long_axis
def f(x):
    return sum(x)
trace(f, f32[5000])

# index_by_arrays_of_other_sizes
def f(x, i, j):
    return x[i, j]
trace(f, f32[3, 3], i64[2], i64[3])

# ufunc_at_of_another
def f(x, i):
    y = x * 1
    np.divide.at(y, i, 2)
    return y
trace(f, f32[5], i64[5])

# in_place_on_argument
def f(x):
    x += 1
    return x
trace(f, f32[3])

# in_place_on_concrete
TOTAL = np.zeros(3)
def f(x):
    total = TOTAL
    total += x * 2
    return total
trace(f, f64[3])

# in_place_on_concrete_attribute
class Mean:
    total = np.zeros(3)
def f(x):
    Mean.total += x
    return Mean.total
trace(f, f64[3])

# assignment_to_an_array_of_outside
TOTAL = np.zeros(3)
def f(x):
    TOTAL[:] = x
    return TOTAL
trace(f, f64[3])

# fill_an_array_of_outside
TOTAL = np.zeros(3)
def f(x):
    TOTAL.fill(x)
    return TOTAL
trace(f, f64[()])

# in_place_on_the_array_of_an_enclosing_function
def f(x):
    total = np.zeros(3)
    def loss(v):
        nonlocal total
        total += v
        return total.sum()
    return grad(loss)(x)
trace(f, f64[3])

# in_place_on_integers_of_floats
def f(x):
    count = np.zeros(3, int)
    count += x
    return count
trace(f, f64[3])

# in_place_on_what_is_read_only
def f(x):
    total = np.broadcast_to(np.zeros(3), (2, 3))
    total += x
    return total
trace(f, f64[3])

# write_through_a_view_of_a_written_array
def f(x):
    total = np.zeros(3)
    head = total[:2]
    total += x
    head += 1
    return total
trace(f, f64[3])

# written_array_in_a_tuple_computed_by_numpy
def f(x):
    totals = (np.zeros(3),)
    for total in totals:
        total += x
    return np.exp(totals[0]) * x
trace(f, f64[3])

# written_array_is_kept
KEPT = []
def f(x):
    total = np.zeros(3)
    KEPT.append(total)
    total += x
    return total
trace(f, f64[3])

# in_place_shape
def f(x, y):
    z = x * 1
    z += y
    return z
trace(f, f32[3], f32[2, 3])

# out
RESULT = np.empty(3)
def f(x):
    np.exp(x, out=RESULT)
    return RESULT
trace(f, f32[3])

# copyto
A = np.ones(3)
def f(c):
    return np.full_like(A, c)
trace(f, f32[()])

# function_unknown
def f(x):
    return np.partition(x, 2)
trace(f, f32[3])

# function_misremembered
def f(x):
    return np.nanmedian(x)
trace(f, f32[3])

# function_of_submodule
def f(x):
    return np.linalg.norm(x)
trace(f, f32[3])

# ufunc_unknown
def f(x, y):
    return np.nextafter(x, y)
trace(f, f32[3], f32[3])

# method_unknown
def f(x):
    return x.partition(2)
trace(f, f32[3])

# argument_unknown
def f(x):
    return np.add(x, 1, where=x > 0)
trace(f, f32[3])

# argument_misspelled
def f(x):
    return x.sum(axes=0)
trace(f, f32[3])

# reduction_initial
def f(x):
    return np.max(x, initial=x)
trace(f, f32[3])

# reduction_out
def f(x):
    return np.max(x, out=np.zeros(()))
trace(f, f32[3])

# max_where_without_initial
def f(x):
    return np.max(x, where=x > 0)
trace(f, f32[3])

# sum_where_of_another_shape
def f(x):
    return x.sum(where=np.ones((2, 3)) > 0)
trace(f, f32[3])

# ddof_and_correction
def f(x):
    return np.var(x, ddof=1, correction=1)
trace(f, f32[3])

# argument_of_ours_misspelled
def f(w, g, state):
    return optim.adam(w, g, state, lr=0.1)
trace(f, f32[3], f32[3], optim.adam_init(np.ones(3, np.float32)))

# argument_of_ours_misspelled_outside_a_trace
w = np.ones(3, np.float32)
optim.sgd(w, w, lr=0.1)

# argument_of_a_method_misspelled
def f(x):
    return x.mean(dim=1)
trace(f, f32[3, 4])

# call_misspelled
graphc.compile(lambda x, w: x * w, target="cpu")(np.ones(3), ww=np.ones(3))

# call_of_gradient_misspelled
grad(lambda x, w: (x * w).sum())(np.ones(3), ww=np.ones(3))

# write_by_out
def f(x):
    return np.exp(x, out=x)
trace(f, f32[3])

# augmented_product_of_argument
def f(x):
    x *= 2
    return x
trace(f, f32[3])

# argument_is_a_dataclass
import dataclasses
@dataclasses.dataclass
class Params:
    w: object
graphc.compile(lambda p, x: x * p.w, target="cpu")(Params(np.ones(3)), np.ones(3))

# gradient_by_a_traced_int
graphc.compile(grad(lambda x: x**3), target="cpu")(2)

# static_array
graphc.compile(lambda x, w: x * w, static="w", target="cpu")(np.ones(3), np.ones(3))

# ufunc_of_scipys
def f(x):
    return scipy.special.erf(x)
trace(f, f32[3])

# ufunc_of_scipys_for_networks
def f(x):
    return scipy.special.expit(x)
trace(f, f32[3])

# static_unhashable
def f(x, sizes):
    return x.reshape(sizes)
trace(f, f32[6], [2, 3], static=("sizes",))

# static_unknown
def f(x, sizes):
    return x.reshape(sizes)
trace(f, f32[6], (2, 3), static=("shape",))

# argument_is_text
def f(x, mode):
    return x if mode == "train" else -x
trace(f, f32[6], "train")

# argument_dtype
def f(x):
    return x + 1
trace(f, np.zeros(3, np.complex64))

# call_signature
def f(x, y, scale=1.0):
    return (x + y) * scale
trace(f, f32[3])

# returns_text
def f(x):
    return {"loss": x.sum(), "name": "mse"}
trace(f, f32[6])

# returns_nothing
def f(x):
    y = x.sum()
trace(f, f32[6])

# random_draw
def f(x):
    return x + np.random.normal(size=3)
trace(f, f64[3])

# leaked_into_a_thread
def f(x):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: x * 2).result()
trace(f, f32[3])

# leaked
KEPT = []
def f(x):
    KEPT.append(x * 2)
    return x
trace(f, f32[3])
def g(y):
    return y + KEPT[0]
trace(g, f32[3])

# grad_of_vector
def f(w):
    return np.tanh(w)
grad(f)(np.ones(3))

# grad_by_int
def f(w, n):
    return np.sum(w * n)
grad(f, argnums=(0, 1))(np.ones(3), np.arange(3))

# grad_by_int_in_tree
def f(params):
    return np.sum(params["w"] * params["count"])
grad(f)({"w": np.ones(3), "count": 3})

# grad_of_int
def f(w):
    return np.argmax(w)
grad(f)(np.ones(3))

# grad_argnums
def f(w):
    return w.sum()
grad(f, argnums=1)(np.ones(3))

# grad_without_aux
def f(w):
    return w.sum(), w
value_and_grad(f)(np.ones(3))

# grad_aux_missing
def f(w):
    return w.sum()
value_and_grad(f, has_aux=True)(np.ones(3))

# vjp_cotangent
def f(w):
    return 2 * w
out, pullback = vjp(f, np.ones(3))
pullback(np.ones(4))

# grad_changes_captured
def f(x):
    y = x * 2
    def inner(w):
        y.__iadd__(w)
        return y.sum()
    return grad(inner)(x)
trace(f, f32[3])

# layer_norm_shape
def f(x, g):
    return nn.layer_norm(x, 5, g)
trace(f, f32[3, 4], f32[5])

# layer_norm_without_shape
def f(x, g):
    return nn.layer_norm(x, g)
trace(f, f32[3, 4], f32[4])

# cross_entropy_labels
def loss(logits, labels):
    return nn.softmax_cross_entropy(logits, labels).mean()
trace(loss, f32[8, 10], f32[8])

# gelu_form
def f(x):
    return nn.gelu(x, approximate="erf")
trace(f, f32[3])

# relu_of_ints
def f(n):
    return nn.relu(n)
trace(f, i32[3])

# linear_shapes
def f(x, w):
    return nn.linear(x, w)
trace(f, f32[8, 4], f32[4, 3])

# adam_trees
w = np.ones(3)
optim.adam({"w": w}, [w], optim.adam_init({"w": w}))

# outside_a_trace
gnp.concatenate([np.ones((2, 3)), np.ones((2, 4))])

# outside_a_trace_unknown
gnp.sort(np.ones(3))

# power_outside_a_trace
gnp.power(np.array([2, 3]), np.array([-1, 1]))

# scalar_unpacked
def f(x):
    a, b = x.sum()
    return a
trace(f, f32[3])

# length_of_scalar
def f(x):
    return len(x.sum())
trace(f, f32[3])

# dict_key
def f(x):
    return {x: 1}
trace(f, f32[3])

# format
def f(x):
    text = format(x.sum(), ".3f")
    return x, text
trace(f, f32[3])

# large_size_symbolic
def f(x):
    return x.mean()
trace(f, f32[None])

# compile_static_number
graphc.compile(lambda x: x, static=3)

# compile_static_unknown_at_decoration
@graphc.compile(static="n")
def f(x):
    return x
f(np.ones(3))

# compile_donate_unknown
@graphc.compile(donate=("params", "momentum"))
def step(params, moments):
    return params, moments
step(np.ones(3), np.ones(3))

# compile_donate_static
@graphc.compile(static="n", donate=("x", "n"))
def f(x, n):
    return x * n
f(np.ones(3), 2)

# compile_device_str
graphc.compile(lambda x: x, device="cpu")

# spec_65
graphc.f32[(1,) * 65]

# spec_huge
graphc.f32[2**40, 2**40]

# options_level
graphc.Options(level=True)

# grad_argnums_str
def f(x):
    return x.sum()
grad(f, argnums="x")

# grad_argnums_float
def f(x):
    return x.sum()
grad(f, argnums=0.0)(np.ones(3))

# grad_argnums_duplicate_negative
def f(x, y):
    return (x * y).sum()
grad(f, argnums=(0, -2))(np.ones(3), np.ones(3))

# grad_argnums_bool
def f(x, y):
    return (x * y).sum()
grad(f, argnums=True)(np.ones(3), np.ones(3))

# vjp_cotangent_complex
def f(x):
    return x
out, pull = vjp(f, np.ones(3))
pull(np.ones(3) * 1j)

# vjp_cotangent_string
def f(x):
    return x
out, pull = vjp(f, np.ones(3))
pull("abc")

# parse_none
graphc.parse(None)

# parse_path
from pathlib import Path
graphc.parse(Path("layer.ir"))

# trace_static
trace(lambda x: x, f32[3], static=5)

# shape_raises
class A:
    dtype = np.dtype(float)
    @property
    def shape(self):
        raise RuntimeError("shape?")
@graphc.compile
def f(x):
    return x + 1
f(A())

# shape_none
class A:
    dtype = np.dtype(float)
    shape = 3
@graphc.compile
def f(x):
    return x + 1
f(A())

# lower_ptx_bad_cc2
from graphc.lowered import lower_graph
from graphc.device import H100
lower_graph(graphc.trace(lambda x: x * 2, graphc.f32[3]), H100, graphc.Options()).kernels[0].ptx(90)

# compile_threads_str
@graphc.compile(target="cpu")
def f(x):
    return x * 2
f.lower(graphc.f32[3]).compile(threads="two")

# dims_65
def f(x):
    for _ in range(65):
        x = x[None]
    return x
trace(f, f32[3])

# too_large_elements
def f(x):
    return gnp.zeros((2**40, 2**40)) + x
trace(f, f32[()])

# arange_huge
def f(x):
    return gnp.arange(1e300)
trace(f, f32[3])

# sgd_shapes_broadcast
optim.sgd([np.ones(3)], [np.ones((2, 3))], 0.1)

# sgd_ints
optim.sgd([np.arange(3)], [np.ones(3)], 0.1)

# sgd_rate_string
optim.sgd([np.ones(3)], [np.ones(3)], "0.1")

# sgd_rate_vector
optim.sgd({"w": np.ones(3, np.float32)}, {"w": np.ones(3)}, np.ones(3))

# adam_ints
optim.adam([np.arange(3)], [np.ones(3)], optim.adam_init([np.arange(3)]))

# adam_state_tuple
optim.adam([np.ones(3)], [np.ones(3)], ())

# adam_state_dtype
optim.adam({"w": np.ones(3, np.float32)}, {"w": np.ones(3)}, optim.adam_init({"w": np.ones(3)}))

# adam_b2_negative
optim.adam([np.ones(3)], [np.ones(3)], optim.adam_init([np.ones(3)]), b2=-0.5)

# adam_in_compile_trees
@graphc.compile
def step(p, g, s):
    return optim.adam(p, g, s)
step({"w": np.ones(3)}, {"v": np.ones(3)}, optim.adam_init({"w": np.ones(3)}))

# adam_eps
optim.adam([np.ones(3)], [np.ones(3)], optim.adam_init([np.ones(3)]), eps="x")

# array_raises_runtime
class A:
    shape, dtype = (3,), np.dtype(float)
    def __array__(self, dtype=None, copy=None):
        raise AttributeError("no array today")
@graphc.compile(target="cpu")
def f(x):
    return x + 1
f(np.ones(3))
f(A())

# too_large_output
@graphc.compile(target="cpu")
def f(x):
    return gnp.broadcast_to(x, (2**16, 2**16, 2**16)) + x
f(np.ones((), np.float32))

# too_large_arena
@graphc.compile(target="cpu")
def f(x):
    y = gnp.broadcast_to(x[:, None], (x.shape[0], 2**48)) * x[:, None]
    return gnp.tanh(y @ y.T)
f(np.ones((3,), np.float32))

# tensordot_repeat
def f(a):
    return np.tensordot(a, a, ((0, 1), (0, 0)))
trace(f, f32[3, 3])

# tensordot_too_many
def f(x, y):
    return np.tensordot(x, y, 2)
trace(f, f32[3], f32[3, 4])

# tensordot_str
def f(a):
    return np.tensordot(a, a, "ij")
trace(f, f32[3, 3])

# dims_outer
def f(x):
    return np.tensordot(x, x, 0)
trace(f, f32[(1,) * 40])

# dims_matmul
def f(x):
    return x @ x
trace(f, f32[(1,) * 60])

# lshift
def f(x):
    return x << 1
trace(f, f32[3])

# ilshift
def f(x):
    x = x * 2
    x <<= 1
    return x
trace(f, f32[3])

# pow_three
def f(x):
    return pow(x, 2, 5)
trace(f, i32[3])

# call_tracer
def f(x):
    return x(3)
trace(f, f32[3])

# matmul_list
def f(x):
    return x @ [[1, 2], [3]]
trace(f, f32[3])

# axis_softmax
def f(x):
    return nn.softmax(x, axis=2)
trace(f, f32[3])

# axis_string
def f(x):
    return x.sum(axis="a")
trace(f, f32[3])

# axis_float
def f(x):
    return x.sum(axis=0.0)
trace(f, f32[3])

# transpose_int
def f(x):
    return np.transpose(x, 3)
trace(f, f32[3, 4])

# concatenate_one_d_axis
def f(x):
    return np.concatenate([x, x], axis=1)
trace(f, f32[3])

# concatenate_scalars
def f(x):
    return np.concatenate([x.sum(), x.sum()])
trace(f, f32[3])

# stack_empty
def f(x):
    return gnp.stack([])
trace(f, f32[3])

# stack_axis
def f(x):
    return gnp.stack([x, x], axis=4)
trace(f, f32[3])

# reshape_zero_minus1
def f(x):
    return x.reshape(0, -1)
trace(f, f32[0])

# reshape_negative
def f(x):
    return x.reshape(-3)
trace(f, f32[3])

# size_negative
def f(x):
    return np.broadcast_to(x, (-2, 3))
trace(f, f32[3])

# take_axis
def f(x):
    return np.take(x, 0, axis=3)
trace(f, f32[3])

# pad_value
def f(x):
    return np.pad(x, 1, constant_values=300)
trace(f, u8[3])

# round_str
def f(x):
    return np.round(x, "a")
trace(f, f32[3])

# round_bool
def f(x):
    return np.round(x > 0, 1)
trace(f, f32[3])

# round_traced
def f(x, d):
    return np.round(x, d)
trace(f, f32[3], 2)

# arange_str
def f(x):
    return x + gnp.arange("a")
trace(f, f32[3])

# arange_nan
def f(x):
    return gnp.arange(float("nan"))
trace(f, f32[3])

# eye_negative
def f(x):
    return x @ gnp.eye(-3)
trace(f, f32[3])

# nn_linear_bias
def f(x, w, b):
    return nn.linear(x, w, b)
trace(f, f32[8, 4], f32[3, 4], f32[8])

# nn_ce_shapes
def f(x, y):
    return nn.softmax_cross_entropy(x, y)
trace(f, f32[8, 4], i64[8, 4])

# gnp_unknown
def f(x):
    return gnp.partition(x, 2)
trace(f, f32[8, 4])

# set_attr
def f(a):
    a.name = "x"
    return a
trace(f, f32[3, 3])

# set_dtype
def f(a):
    a.dtype = np.int32
    return a
trace(f, f32[3, 3])

# index_ragged
def f(x):
    return x[[[0, 1], [2]]]
trace(f, f32[3])

# underline_after_tabs
def f(x, y):
	z =	x +	(x	@	y)
	return z
trace(f, f32[3, 4], f32[3, 4])

# json
import json
def f(x):
    return json.dumps({"x": x})
trace(f, f32[3])

# join_text
def f(x):
    return ",".join([x])
trace(f, f32[3])

# gelu_list
def f(x):
    return nn.gelu(x, ["tanh"])
trace(f, f32[4])

# argument_of_another_library
nn.softmax(np.ones(3), dim=0)

# grad_by_kwarg
def f(x, w):
    return (x * w).sum()
grad(f, argnums=1)(np.ones(3), w=np.ones(3))

# walrus
def f(x, y):
    return (z := x @ y) + z
trace(f, f32[3, 4], f32[3, 4])

# comprehension
def f(x, ws):
    return [x @ w for w in ws]
trace(f, f32[3, 4], [f32[4, 4], f32[3, 4]])

# lambda_in_call
def f(x, y):
    return list(map(lambda a: a @ y, [x, x]))
trace(f, f32[3, 4], f32[3, 4])

# chained_calls
def f(x, y):
    return (x
            .reshape(4, 3)
            .sum(axis=5)
            .mean())
trace(f, f32[3, 4], f32[3, 4])

# vjp_list_cotangent
def f(x):
    return [x, x]
out, pull = vjp(f, np.ones(3))
pull((np.ones(3), np.ones(3)))

# list_index
def f(x, i):
    return [1, 2, 3][i] * x
trace(f, f32[3], 1)

# rmasked
def f(x):
    return np.ma.array([1.0, 2.0], mask=[0, 1]) + x
trace(f, f32[2])

# concatenate_dtype
def f(x):
    return np.concatenate([x, x], dtype=np.float64)
trace(f, f32[3])

# lower_keyword
@graphc.compile
def f(x):
    return x
f.lower(y=graphc.f32[3])

# type_by_hand
trace(lambda x: x, graphc.Type("f32", (3,)))

# grad_inside_compile_shape
@graphc.compile
def step(w, x):
    def loss(w):
        return ((x @ w) ** 2).mean()
    return w - 0.1 * grad(loss)(w)
step(np.ones((3, 2)), np.ones((4, 5)))

# len_symbolic
def f(x):
    return x * len(x)
trace(f, graphc.f32[None])

# concat_symbolic
def f(x):
    return gnp.concatenate([x, x])
trace(f, graphc.f32[None, 3])

# getitem_symbolic
def f(x):
    return x[1:]
trace(f, graphc.f32[None, 3])

# zeros_symbolic
def f(x):
    return x + gnp.zeros(x.shape)
trace(f, graphc.f32[None])

# callable_object
class A:
    def __call__(self, x):
        return x @ x
graphc.compile(A())(np.ones((3, 4)))

# clip_shapes
def f(x, y):
    return np.clip(x, y, 3)
trace(f, f32[4], f32[3])

# executable_wrong_count
@graphc.compile(target="cpu")
def f(x):
    return x * 2
f.lower(graphc.f32[3]).compile().executable([])

# executable_of_an_array
@graphc.compile(target="cpu")
def f(x):
    return x * 2
f.lower(graphc.f32[3]).compile().executable(np.ones(3, "f"))

# lowered_for_other_types
@graphc.compile(target="cpu")
def f(x, n):
    return x * n
f.lower(graphc.f32[3], 2).compile()(np.ones(4, "f"), 2)

# graph_run_wrong_count
graphc.trace(lambda x: x + 1, graphc.f32[3]).run()

# graph_run_wrong_type
graphc.trace(lambda x: x + 1, graphc.f32[3]).run(np.ones(3))

# lower_string_spec
@graphc.compile
def f(x):
    return x + 1
f.lower("f32[3]")

# lower_dtype_class
@graphc.compile
def f(x):
    return x + 1
f.lower(np.float32)

# adam_init_of_a_spec
optim.adam_init({"w": graphc.f32[3]})

# compile_device_of_another_target
graphc.compile(lambda x: x, target="cpu", device=graphc.device.H100)

# compile_no_threads
graphc.compile(lambda x: x, threads=0)

# debug_forward
@graphc.compile
def entropy(p):
    logs = np.log(p)
    return -(p * logs).sum()
entropy.debug(np.array([0.5, 0.0, 0.5], np.float32))

# debug_gradient
@graphc.compile
def length(x):
    return np.sqrt((x * x).sum())
graphc.value_and_grad(length).debug(np.zeros(3, np.float32))

# debug_given
@graphc.compile(target="cpu")
def scaled(x, by):
    return x * by
scaled.debug(np.ones(3, np.float32), np.array([1, np.nan, np.inf], np.float32))

# nan_raise
@graphc.compile(target="cpu", options=graphc.Options(nan="raise"))
def ratio(a, b):
    return a / b
ratio(np.ones((2, 3), np.float32), np.eye(2, 3, dtype=np.float32))

# options_nan
graphc.Options(nan="warn")
"""
