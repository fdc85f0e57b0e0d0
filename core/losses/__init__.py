"""Loss functions, one value per example, by what they learn from."""
