"""The training engine and the command line."""
