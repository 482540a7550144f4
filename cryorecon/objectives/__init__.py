"""Floor 5: what is optimised. ``phases(model, batch)`` yields gradient steps or closed-form steps."""
