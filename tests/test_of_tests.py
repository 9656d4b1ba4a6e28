"""The tests are tested: a fault is planted in the running program, and a test must notice.

A row is what is planted, how, and the check of the suite that has to fail while it is there.
Each check also passes without the fault, so that it is the fault which it notices.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from graphc import canonical
from graphc.codegen import access, donation
from graphc.device import CPU
from graphc.ir import Value
from graphc.kinds.base import INPUT
from graphc.opdef import REGISTRY
from graphc.ops.elementwise import gt
from graphc.passes import (
    cse,
    fold,
    matching,
    simplify_logic,
    simplify_sums,
    simplify_views,
)
from graphc.passes.rules import EXACT, REAL, SIGNED_ZERO, Rule
from graphc.passes.simplify import all_rules
from tests import test_donation, test_passes, test_random
from tests.op_cases import CASES
from tests.random_graphs import random_graph
from tests.test_ops import test_code_spells_what_numpy_means as check_code
from tests.test_ops import test_gradients_of_order_1_and_2 as check_gradients
from tests.test_rules import check_contract, check_cost

Plant = Callable[[], Any]
Check = Callable[[], None]


# --- planting -------------------------------------------------------------------------------


@contextmanager
def changed(thing: Any, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block, an attribute of a module or record is what `change` makes of it."""
    before = getattr(thing, name)
    object.__setattr__(thing, name, change(before))
    try:
        yield
    finally:
        object.__setattr__(thing, name, before)


@contextmanager
def edited(name: str, **fields: Any) -> Iterator[None]:
    """Within the block, the rule of this name has these fields (and nothing cached)."""
    rule = find_rule(name)
    before = dict(vars(rule))
    try:
        vars(rule).clear()
        vars(rule).update({f.name: before[f.name] for f in dataclasses.fields(rule)} | fields)
        yield
    finally:
        vars(rule).clear()
        vars(rule).update(before)


def instead(thing: Any, name: str, value: Any) -> Plant:
    """Plant `value` for the attribute."""
    return lambda: changed(thing, name, lambda before: value)


class AlwaysOne(Counter[Any]):
    """A count that says that whatever is there is there once."""

    def __getitem__(self, key: Any) -> int:
        return 1


def scaled(vjp: Callable[..., Any]) -> Callable[..., Any]:
    """A gradient that is off by half a thousandth."""
    return lambda *args, **attrs: tuple(
        None if share is None else share * 1.0005 for share in vjp(*args, **attrs)
    )


def find_rule(name: str) -> Rule:
    return next(r for r in all_rules() if r.name == name)


def relabelled(name: str, contract: Any) -> Plant:
    """Another contract on a rule."""
    return lambda: edited(name, contract=contract)


def flipped(name: str) -> Plant:
    """Another comparison in the replacement of a rule."""
    value = find_rule(name).replacement
    assert isinstance(value, Value)
    node = dataclasses.replace(value.node, op=gt)
    return lambda: edited(name, replacement=Value(node))


# --- the checks as functions of nothing -----------------------------------------------------


def gradients(name: str) -> Check:
    case = next(c for c in CASES if c.op.name == name)
    return lambda: check_gradients(case, np.random.default_rng(0))


def code(name: str) -> Check:
    case = next(c for c in CASES if c.op.name == name)
    return lambda: check_code(case, np.random.default_rng(0))


def contract(name: str) -> Check:
    return lambda: check_contract(find_rule(name))


def cost(name: str) -> Check:
    return lambda: check_cost(find_rule(name))


def random_gradients_in_small_pieces() -> None:
    for seed in range(30):
        test_random.check_passes_alone(random_graph(seed, gradient=True))


# --- the faults -----------------------------------------------------------------------------


TANH, MUL, LT = REGISTRY["tanh"], REGISTRY["mul"], REGISTRY["lt"]


FAULTS: list[tuple[str, Plant, Check]] = [
    ("a vjp times 1.0005", lambda: changed(TANH, "vjp", scaled), gradients("tanh")),
    (
        "a swapped residual",
        instead(TANH, "vjp", lambda g, out, x: (g * (1 - x * x),)),
        gradients("tanh"),
    ),
    (
        "the cotangents of a product exchanged",
        instead(MUL, "vjp", lambda g, out, x, y: (g * x, g * y)),
        gradients("mul"),
    ),
    ("a spelling with <= for <", instead(LT, "code", ("x <= y",)), code("lt")),
    (
        "a flipped comparison in a rule",
        flipped("int-not-lt"),
        contract("int-not-lt"),
    ),
    ("a label too strong: zeros", relabelled("add-zero", EXACT), contract("add-zero")),
    ("a label too strong: nan", relabelled("sub-self", SIGNED_ZERO), contract("sub-self")),
    ("a label too strong: overflow", relabelled("square-sqrt", EXACT), contract("square-sqrt")),
    ("a label too weak", relabelled("neg-neg", SIGNED_ZERO), contract("neg-neg")),
    ("a label much too weak", relabelled("where-not", REAL), contract("where-not")),
    (
        "a rule that raises the cost",
        lambda: edited("neg-neg", replacement=find_rule("neg-neg").pattern),
        cost("neg-neg"),
    ),
    (
        "a cast that rounds dropped before another",
        instead(simplify_logic, "_passes_through", lambda first, middle, last: True),
        contract("cast-cast"),
    ),
    (
        "a slice of a slice off by one",
        lambda: changed(
            simplify_views,
            "_composed_slice",
            lambda compose: lambda p, q, r, s, t, u: compose(p, q, r, s, t, r),
        ),
        contract("slice-slice"),
    ),
    (
        "paddings of 0.0 and of -0.0 taken for the same",
        instead(matching, "bit_key", lambda value: value),
        contract("pad-pad"),
    ),
    (
        "a permutation for its inverse",
        instead(
            simplify_sums,
            "_unpermuted",
            lambda letters, perm: "".join(letters[i] for i in perm or range(len(letters))),
        ),
        contract("contract-transpose-left"),
    ),
    (
        "the axes of a second reduction taken for those of the first",
        lambda: changed(
            simplify_sums,
            "_both_axes",
            lambda both: lambda x, first, second: tuple(sorted({*first, *second})),
        ),
        contract("max-max"),
    ),
    (
        "cse that takes 0.0 for -0.0",
        instead(canonical, "bit_key", lambda value: value),
        test_passes.test_cse_tells_attributes_of_other_bits_apart,
    ),
    (
        "cse that takes x - y for y - x",
        instead(cse, "is_commutative", lambda node: len(node.operands) == 2),
        random_gradients_in_small_pieces,
    ),
    (
        "cse that drops effects",
        instead(cse, "kind_of", lambda node: INPUT),
        test_passes.test_effects_stay_and_stay_apart,
    ),
    (
        "cse that merges what a tag keeps apart",
        lambda: changed(cse, "node_key", lambda key: lambda *node: key(*node)[:-1]),
        test_passes.test_remat_shortens_the_residuals_and_cse_does_not_undo_it,
    ),
    (
        "fold that takes almost one number for one",
        instead(fold, "one_number", lambda a: a.reshape(-1)[0].item() if a.size else None),
        lambda: test_passes.check_numbers("fold"),
    ),
    (
        "fold that fills a padded number",
        instead(fold, "_fills", lambda node: False),
        lambda: test_passes.check_numbers("fold"),
    ),
    (
        "a donated array that is overwritten and then read",
        instead(access, "_before", lambda read, write, lanes: True),
        lambda: test_donation.check_trap(test_donation.read_of_other_elements, CPU),
    ),
    (
        "a donated array that another launch of the step reads",
        instead(donation, "Counter", AlwaysOne),
        lambda: test_donation.check_trap(test_donation.read_by_another_launch, CPU),
    ),
]


@pytest.mark.parametrize(
    ("plant", "check"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_planted_fault_is_caught(plant: Plant, check: Check) -> None:
    with plant(), pytest.raises((AssertionError, TypeError)) as caught:
        check()
    # The rule engine itself refuses a replacement of another type.
    assert isinstance(caught.value, AssertionError) or "in the place of" in str(caught.value)


@pytest.mark.parametrize("check", dict.fromkeys(f[2] for f in FAULTS))
def test_check_passes_without_the_fault(check: Check) -> None:
    check()
