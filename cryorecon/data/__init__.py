"""Floor 2: files in and out (MRC, STAR, cryoSPARC, cryoDRGN), particle stacks, batches and preparation."""
