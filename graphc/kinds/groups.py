"""The kind of groups: what one kernel computes, as a region."""

from __future__ import annotations

from graphc.kinds.base import Kind


class Group(Kind):
    """What its region makes of the operands."""

    name = "group"
    regions = 1
    is_group = True


GROUP = Group()
