"""Floor 3: treatments of what is unknown. Each returns K weighted hypotheses per image."""
