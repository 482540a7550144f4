"""Floor 0: the Fourier grid, transforms and rotations. Knows nothing of microscopes, files or learning."""
