"""Floor 1: figures of merit. Arrays in, arrays out."""
