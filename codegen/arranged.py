"""Products that BLAS takes once operands are stored in another order, or the result is read so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.product import MatrixProduct, is_for_blas, matrix_form
from graphc.codegen.region import again, needed, on_new, piece
from graphc.ir import Graph, Literal, Node, Value
from graphc.kinds.contractions import Letters, letters_of
from graphc.ops.views import permuted

WORTH = 8
"""Multiplications for each element that is stored once more, from which BLAS repays that."""
LEAST = 4096
"""Multiplications of one matrix with another from which BLAS repays a call."""


@dataclass(frozen=True)
class Arranged:
    """A region whose product BLAS takes, and the pieces that store operands for it before.

    `back` has what each output of the region was.
    """

    stored: tuple[Graph, ...]
    region: Graph
    product: Node
    form: MatrixProduct
    back: Mapping[Value, Value]


def arranged(region: Graph, product: Node) -> Arranged | None:
    """The region with as few operands stored anew as BLAS needs; None where that does not pay."""
    if not is_for_blas(product) or any(isinstance(o, Literal) for o in product.operands):
        return None
    letters = letters_of(product)
    if letters.size(letters.rows + letters.columns + letters.inner) < LEAST:
        return None
    for chosen in ((), (0,), (1,), (0, 1)):
        anew = sum(product.operands[i].type.size for i in chosen)
        if WORTH * anew <= letters.work:
            found = _arranged(region, product, letters, chosen)
            if found is not None:
                return found
    return None


def _arranged(
    region: Graph, product: Node, letters: Letters, chosen: Sequence[int]
) -> Arranged | None:
    """The region with the chosen operands stored in the order of BLAS; None if that needs more."""
    batch, rows, columns, inner = letters.batch, letters.rows, letters.columns, letters.inner
    orders = (batch + rows + inner, batch + inner + columns)
    operands, specs = list(product.values), list(letters.operands)
    nodes: list[Node] = []
    for i in chosen:
        if specs[i] != orders[i]:
            nodes.append(_in_order(operands[i], specs[i], orders[i], product))
            operands[i], specs[i] = Value(nodes[-1]), orders[i]
    natural = letters.result == batch + columns + rows
    result = letters.result if natural else batch + rows + columns
    made = again(
        product,
        tuple(operands),
        {"spec": f"{specs[0]},{specs[1]}->{result}"},
        product.types[0].with_shape(tuple(letters.sizes[c] for c in result)),
    )
    stored = [operands[i] for i in chosen]
    form = matrix_form(made, {*region.inputs, *stored})
    if form is None:
        return None
    if result != letters.result:
        made = replace(made, names=())
        view = _in_order(Value(made), result, letters.result, product)
        nodes += [made, replace(view, names=product.names)]
    else:
        nodes.append(made)
    whole, back = _around(region, product, nodes)
    kept = {v.node for v in stored}
    rest = needed([n for n in whole.nodes if n not in kept], whole.outputs)
    return Arranged(
        tuple(piece(whole.name, needed(whole.nodes, [v]), [v]) for v in stored),
        piece(whole.name, rest, whole.outputs),
        made,
        form,
        back,
    )


def _in_order(value: Value, letters: str, wanted: str, product: Node) -> Node:
    """The view of a value that has its axes in the order wanted."""
    perm = tuple(letters.index(c) for c in wanted)
    return replace(permuted(value, perm), loc=product.loc, order=product.order)


def _around(
    region: Graph, product: Node, nodes: Sequence[Node]
) -> tuple[Graph, dict[Value, Value]]:
    """The region with `nodes` for the product, the last its result, and what its outputs were."""
    new = {Value(product): Value(nodes[-1])}
    found: list[Node] = []
    for node in region.nodes:
        if node is product:
            found += nodes
        elif any(v in new for v in node.values):
            found.append(on_new(node, new))
        else:
            found.append(node)
    outputs = tuple(new.get(v, v) for v in region.outputs)
    back = dict(zip(outputs, region.outputs))
    return Graph(region.name, region.inputs, tuple(found), outputs), back
