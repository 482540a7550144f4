"""Floor 7: latents, clusters and trajectories of a run. Arrays and files, no pictures."""
