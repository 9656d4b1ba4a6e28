"""Algebraic simplification: one driver for the rule tables."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence

from graphc.functions.promote import full
from graphc.ir import Builder, Graph, Literal, Node, Operand, Value
from graphc.opdef import Op
from graphc.passes.dce import dce
from graphc.passes.matching import Match, cost, matches, operand_kinds, replace
from graphc.passes.rewrite import GraphPass, Report, emitting, graph_pass, with_numbers
from graphc.passes.rules import EXACT, Contract, Rule, Table
from graphc.passes.simplify_algebra import ALGEBRA
from graphc.passes.simplify_formulas import formulas
from graphc.passes.simplify_logic import LOGIC
from graphc.passes.simplify_sums import SUMS
from graphc.passes.simplify_views import VIEWS

TABLES: tuple[Table, ...] = (*ALGEBRA, *LOGIC, *VIEWS, *SUMS)
SWEEPS = 4
"""How often a graph is gone through: later sweeps catch what sharing had held back."""

RulesByOp = dict[Op, list[Rule]]


@functools.cache
def all_rules() -> tuple[Rule, ...]:
    """The rows of all tables, in order."""
    return tuple(rule for table in TABLES for rule in table.rules)


def index_rules(rules: Iterable[Rule]) -> RulesByOp:
    """Rules by the op at which they are tried."""
    index: RulesByOp = {}
    for rule in rules:
        index.setdefault(rule.root, []).append(rule)
    return index


@functools.cache
def _index(contract: Contract) -> RulesByOp:
    return index_rules(r for r in all_rules() if r.contract <= contract)


@graph_pass
def simplify(graph: Graph, report: Report) -> Graph:
    """Apply the EXACT rules; the results keep their bits."""
    return rewrite(graph, _index(EXACT), report)


@graph_pass
def simplify_fast(graph: Graph, report: Report) -> Graph:
    """Apply all rules, those that hold for real numbers or up to the sign of zero as well."""
    return rewrite(graph, _index(max(Contract)), report)


@functools.cache
def _formulas() -> RulesByOp:
    return index_rules(formulas.rules)


@graph_pass
def recognize(graph: Graph, report: Report) -> Graph:
    """Replace formulas by the ops that do not overflow; to be run before a gradient is taken."""
    return rewrite(graph, _formulas(), report)


def simplify_by(rules: Iterable[Rule]) -> GraphPass:
    """A pass that applies these rules."""
    index = index_rules(rules)
    return graph_pass(lambda graph, report: rewrite(graph, index, report))


def rewrite(graph: Graph, index: RulesByOp, report: Report) -> Graph:
    """Apply rules in up to `SWEEPS` walks, each of which lowers the cost; drop what is unread then.

    Linear in nodes: every node is tried once a walk, and so is what a rule puts in its place.
    """
    for _ in range(SWEEPS):
        sweep = _Sweep(dce(graph), index, report)
        graph = dce(sweep.run())
        if not (sweep.fired and sweep.held_back):
            break
    return graph


class _Sweep:
    """One walk over a graph in order: a node meets the rules when its operands are final.

    `uses` counts the readers of each new value, those that the walk has not reached included:
    a rule is applied only if what it adds costs no more than the nodes that nobody else reads.
    """

    def __init__(self, graph: Graph, index: RulesByOp, report: Report) -> None:
        self.graph = graph
        self.index = index
        self.report = report
        self.builder = Builder(graph.name, meta=graph.meta)
        self.uses: Counter[Value] = Counter()
        self.fired = 0
        self.held_back = 0

    def run(self) -> Graph:
        """The graph after one walk; nodes that rules made useless are still there."""
        builder = self.builder
        builder.inputs.extend(self.graph.inputs)
        readers = Counter(v for node in self.graph.nodes for v in node.values)
        readers.update(self.graph.outputs)
        new: dict[Value, Value] = {v: v for v in self.graph.inputs}
        self.uses.update({v: readers[v] for v in self.graph.inputs})
        for node in self.graph.nodes:
            operands = [new[o] if isinstance(o, Value) else o for o in node.operands]
            self.uses.subtract(o for o in operands if isinstance(o, Value))
            for old, made in zip(node.results, self.place(node, operands), strict=True):
                self.uses[made] += readers[old]
                new[old] = made
        return builder.graph([new[v] for v in self.graph.outputs])

    def place(self, node: Node, operands: Sequence[Operand]) -> Sequence[Value]:
        """Append `node` with these operands, or what rules make of it."""
        builder = self.builder
        results = builder.rebuild(node, with_numbers(node, operands))
        candidate = builder.nodes[-1]
        self.uses.update(candidate.values)
        literals_only = all(isinstance(o, Literal) for o in candidate.operands)
        if not isinstance(candidate.op, Op) or literals_only:  # those are folded
            return results
        kinds = operand_kinds(candidate)
        for rule in self.index.get(candidate.op, ()):
            if not rule.needs <= kinds:
                continue
            self.report.attempts += 1
            for match in matches(rule, candidate):
                result = self._apply(rule, match)
                if result is not None:
                    return (result,)
        return results

    def _apply(self, rule: Rule, match: Match) -> Value | None:
        """Put the rule's replacement in the place of the node appended last, if that pays."""
        made = replace(rule, match)
        if made is None:
            return None
        nodes, result = made
        root = match.nodes[0]
        if not cost(nodes) < cost(dict.fromkeys(match.nodes)):
            return None
        if cost(nodes) > cost(self._dying(match)):
            self.held_back += 1
            return None
        self.fired += 1
        self.report.note(rule.name, root)
        last = self.builder.nodes.pop()
        assert last is root
        value = self._placed(root, nodes, result)
        # Only now, and with a reader: what the replacement reads must not die on the way.
        self.uses[value] += 1
        self._release(root)
        self.uses[value] -= 1
        return value

    def _placed(self, root: Node, nodes: Sequence[Node], result: Operand) -> Value:
        new: dict[Value, Value] = {}
        start = len(self.builder.nodes)
        for node in nodes:
            operands = [new.get(o, o) if isinstance(o, Value) else o for o in node.operands]
            new.update(zip(node.results, self.place(node, operands), strict=True))
        if isinstance(result, Literal):
            with emitting(self.builder, root):
                value: Value = full(root.types[0].shape, result.value, result.dtype).value
        else:
            value = new.get(result, result)
        if root.names and value.node in self.builder.nodes[start:]:
            self.builder.name_value(value, root.names[0])
        return value

    def _dying(self, match: Match) -> list[Node]:
        """The nodes of the match that nobody reads once its root is gone, root included."""
        dying: dict[Node, None] = {match.nodes[0]: None}
        reads = Counter(match.nodes[0].values)
        for node in match.nodes[1:]:
            if node not in dying and all(self.uses[v] == reads[v] for v in node.results):
                dying[node] = None
                reads.update(node.values)
        return list(dying)

    def _release(self, node: Node) -> None:
        """Forget that `node` reads its operands, and so on for what nobody reads any more."""
        stack = [node]
        while stack:
            for value in stack.pop().values:
                self.uses[value] -= 1
                if not any(self.uses[v] for v in value.node.results) and not value.is_input:
                    stack.append(value.node)
