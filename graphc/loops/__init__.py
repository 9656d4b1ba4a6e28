"""What nodes are as loops: axes, statements, groups that a kernel holds, and trees of loops."""
