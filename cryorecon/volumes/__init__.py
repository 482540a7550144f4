"""Floor 2: parametrisations of a density, one file each, and closed-form backprojection."""
