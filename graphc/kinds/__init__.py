"""The kinds of ops as objects, and what makes a record of each."""

from graphc.kinds.base import Kind, operation
from graphc.kinds.composites import COMPOSITE, composite, computed_wide, is_half
from graphc.kinds.contractions import CONTRACTION
from graphc.kinds.control import COND, LOOP, WHILE
from graphc.kinds.creation import CONSTANT, IOTA
from graphc.kinds.groups import GROUP
from graphc.kinds.indexed import GATHER, SCATTER
from graphc.kinds.pointwise import ELEMENTWISE, elementwise
from graphc.kinds.reductions import REDUCTION, check_axes, extreme, reduction
from graphc.kinds.views import VIEW, view

KINDS = (
    ELEMENTWISE,
    VIEW,
    REDUCTION,
    CONTRACTION,
    GATHER,
    SCATTER,
    IOTA,
    CONSTANT,
    COMPOSITE,
    GROUP,
    LOOP,
    COND,
    WHILE,
)

__all__ = [
    "COMPOSITE",
    "COND",
    "CONSTANT",
    "CONTRACTION",
    "ELEMENTWISE",
    "GATHER",
    "GROUP",
    "IOTA",
    "KINDS",
    "LOOP",
    "REDUCTION",
    "SCATTER",
    "VIEW",
    "WHILE",
    "Kind",
    "check_axes",
    "composite",
    "computed_wide",
    "elementwise",
    "extreme",
    "is_half",
    "operation",
    "reduction",
    "view",
]
