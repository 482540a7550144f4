"""Libraries of others, unchanged; README.md says which."""
