"""Floor 5: molecules and motions -> volumes -> particle stacks with their truth."""
