"""Floor 6: configuration, the one loop, stages, checkpoints and the run directory."""
