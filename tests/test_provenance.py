"""Every node bears the user's line, columns and variable names, to the character."""

from __future__ import annotations

import copy
import linecache
import statistics
from pathlib import Path

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc import nn
from graphc.dtypes import f64
from graphc.provenance import is_internal
from graphc.tracing import trace
from graphc.transforms import grad

X, Y = f64[3], f64[3]


def seen(f, *specs):
    """(op, names, expression) of every node; the expression without its line breaks."""
    return [
        (node.op.name, *node.names, *text(node.loc))
        for node in trace(f, *(specs or (X, Y))).nodes
    ]


def text(loc):
    """The characters that a location underlines, over all its lines."""
    lines = [linecache.getline(loc.file, n) for n in range(loc.line, loc.end_line + 1)]
    lines[-1] = lines[-1][: loc.end_column]
    lines[0] = lines[0][loc.column :]
    assert loc.source == linecache.getline(loc.file, loc.line).rstrip("\n")
    return [" ".join(" ".join(lines).split())]


def test_operators_functions_and_methods():
    def f(x, y):
        h = x + y
        h = np.tanh(h * 2)
        z = np.sum(h)
        total = h.sum() - gnp.exp(z)
        return nn.relu(total)

    assert seen(f) == [
        ("add", "h", "x + y"),
        ("mul", "h * 2"),
        ("tanh", "h", "np.tanh(h * 2)"),
        ("sum", "z", "np.sum(h)"),
        ("sum", "h.sum()"),
        ("exp", "gnp.exp(z)"),
        ("sub", "total", "h.sum() - gnp.exp(z)"),
        ("relu", "nn.relu(total)"),
    ]


def test_a_call_of_several_nodes_names_the_last():
    def f(x, y):
        spread = np.var(x)
        return [spread]

    nodes = seen(f)
    assert {n[-1] for n in nodes} == {"np.var(x)"}
    assert [n[1] for n in nodes if len(n) == 3] == ["spread"]
    assert nodes[-1][:2] == ("div", "spread")


def test_loops_name_every_turn():
    def f(x, y):
        for _ in range(3):
            x = np.tanh(x)
        return x

    assert seen(f) == [("tanh", "x", "np.tanh(x)")] * 3


def test_helpers_bear_their_own_lines():
    def dense(v, w):
        inner = v * w
        return np.tanh(inner)

    def f(x, y):
        a = dense(x, y)
        return dense(a, y)

    inner, tanh = ("mul", "inner", "v * w"), ("tanh", "np.tanh(inner)")
    assert seen(f) == [inner, ("tanh", "a", tanh[1]), inner, tanh]


def test_what_helpers_return_has_the_name_it_is_given():
    def scaled(v):
        return v * 2

    def both(v):
        return scaled(v)

    def f(x, y):
        first = both(x)
        second, third = scaled(first), both(first + 1)
        return scaled(second) + third

    assert [name for _, *name, _ in seen(f)] == [["first"], ["second"], [], ["third"], [], []]


def test_expressions_over_several_lines():
    def f(x, y):
        total = (
            np.exp(x)
            + y
        )  # fmt: skip
        return np.maximum(
            total,
            0.0,
        )  # fmt: skip

    assert seen(f) == [
        ("exp", "np.exp(x)"),
        ("add", "total", "np.exp(x) + y"),
        ("maximum", "np.maximum( total, 0.0, )"),
    ]


def test_columns_count_characters():
    def f(x, y):
        größe = x + y; π = "日本" and größe * y  # noqa: E702 # fmt: skip
        return π - größe

    assert seen(f) == [
        ("add", "größe", "x + y"),
        ("mul", "π", "größe * y"),
        ("sub", "π - größe"),
    ]


def augmented(x, y):
    z = x * 1
    z += y
    return z


def tuple_of_two(x, y):
    u, v = x + y, x - y
    return u, v


def tuple_of_three(x, y):
    a, b, c = x + y, x - y, x * y
    return a, b, c


def swapped(x, y):
    x, y = y + 1, x - 1
    return x, y


def two_results(x, y):
    q, r = np.divmod(x, y)
    return q, r


def chained(x, y):
    a = b = x + y
    return a, b


def walrus(x, y):
    return (s := x + y) - s * 2


def annotated(x, y):
    a: object = x + y
    return a


def attribute(x, y):
    class Box:
        pass

    box = Box()
    box.value = x + y
    return box.value - y


def items(x, y):
    found = {}
    found["a"] = x + y
    return [x - y, found["a"]]


def conditional(x, y):
    a = x + y if len(x) == 3 else x
    return [a]


def closure(x, y):
    total = x + y

    def inner():
        nonlocal total
        total = total - 1
        return total

    return inner()


def comprehension(x, y):
    return [row + y for row in (x, y)]


def starred(x, y):
    a, *rest = x + y, x - y, x * y
    return a, rest


def indexed(x, y):
    head = x[:2]
    last = x[-1]
    return head, last


NAMES = {
    augmented: [("mul", "z", "x * 1"), ("add", "z", "z += y")],
    tuple_of_two: [("add", "u", "x + y"), ("sub", "v", "x - y")],
    tuple_of_three: [("add", "a", "x + y"), ("sub", "b", "x - y"), ("mul", "c", "x * y")],
    swapped: [("add", "x", "y + 1"), ("sub", "y", "x - 1")],
    two_results: [("divmod", "q", "r", "np.divmod(x, y)")],
    chained: [("add", "a", "x + y")],
    walrus: [("add", "s", "x + y"), ("mul", "s * 2"), ("sub", "(s := x + y) - s * 2")],
    annotated: [("add", "a", "x + y")],
    attribute: [("add", "x + y"), ("sub", "box.value - y")],
    items: [("add", "x + y"), ("sub", "x - y")],
    closure: [("add", "total", "x + y"), ("sub", "total", "total - 1")],
    comprehension: [("add", "row + y")] * 2,
    indexed: [("slice", "head", "x[:2]"), ("slice", "x[-1]"), ("reshape", "last", "x[-1]")],
}


@pytest.mark.parametrize("f", NAMES, ids=lambda f: f.__name__)
def test_names(f):
    assert seen(f) == NAMES[f]


@pytest.mark.parametrize("f", [conditional, starred], ids=lambda f: f.__name__)
def test_names_that_are_not_certain_are_not_wrong(f):
    for op, *names, expression in seen(f):
        assert op in ("add", "sub", "mul") and expression in ("x + y", "x - y", "x * y")
        assert names in ([], ["a"])


def test_gradients_bear_the_line_of_the_forward_node():
    def f(x):
        h = np.tanh(x)
        return np.sum(h * h)

    nodes = trace(grad(f), X).nodes
    assert {text(n.loc)[0] for n in nodes if n.order == 1 and n.loc is not None} >= {
        "np.tanh(x)",
        "h * h",
        "np.sum(h * h)",
    }
    assert {n.names for n in nodes if n.order == 0} == {("h",), ()}


def test_a_function_of_scipys_has_the_line_that_calls_it():
    inside = str(Path(np.__file__).parents[1] / "scipy" / "special" / "_some.py")
    space = {"np": np}
    exec(compile("def special(x):\n    return np.tanh(x)\n", inside, "exec"), space)

    def f(x):
        return space["special"](x)

    assert seen(f, X) == [("tanh", 'space["special"](x)')]


def test_pythons_own_library_is_no_users_but_what_is_installed_in_it_is():
    library = Path(linecache.__file__).parent
    assert is_internal(str(library / "json" / "encoder.py"))
    assert not is_internal(str(library / "site-packages" / "models" / "layer.py"))

    def f(x):
        return statistics.fmean([1.0, 2.0]) * x + copy.copy(x)

    assert {line for *_, line in seen(f, X)} == {
        "statistics.fmean([1.0, 2.0]) * x",
        "statistics.fmean([1.0, 2.0]) * x + copy.copy(x)",
    }


def test_source_that_is_not_there():
    namespace = {"np": np}
    exec(compile("def f(x):\n    y = np.tanh(x)\n    return y\n", "<gone>", "exec"), namespace)
    (node,) = trace(namespace["f"], X).nodes
    assert (node.loc.file, node.loc.line, node.loc.source) == ("<gone>", 2, "")
    assert node.names == ("y",)
    with pytest.raises(ValueError, match="<gone>:2") as caught:
        exec(compile("def f(x):\n    return x @ np.ones(4)\n", "<gone>", "exec"), namespace)
        trace(namespace["f"], X)
    assert "^" not in str(caught.value)


def test_a_result_of_a_trace_names_nothing_in_it() -> None:
    """What is added up between two user functions is not called as their caller's variable."""
    both = graphc.compile(graphc.value_and_grad(lambda x, d: (x * d).sum() * d, argnums=(0, 1)))
    low = both.lower(graphc.f32[3], 1.0)
    names = {v.name for node in low.graph.nodes for v in node.results}
    assert "low" not in names
    assert not any(n.loc is not None and "both.lower" in n.loc.source for n in low.graph.nodes)
