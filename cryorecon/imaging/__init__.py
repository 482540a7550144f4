"""Floor 1: what the microscope does to a projection: contrast transfer, noise, masks."""
