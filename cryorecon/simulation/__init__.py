"""Floor 5: molecules and motions -> volumes -> particle stacks with their truth."""

# of the built-in molecule; they stand here so that the command's help needs no more than this
MOTIONS = ("rigid", "hinge", "hinge2", "circle", "states")
