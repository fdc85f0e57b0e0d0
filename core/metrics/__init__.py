"""Evaluation measures; nothing here is trained on."""
