"""Optax transformations: `scale_by_x`, the rule alone, beside `x`, ready to use."""
