"""Floor 8: pictures and pages. Draws what analysis found; computes nothing of its own."""
