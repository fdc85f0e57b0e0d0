"""Measurements against other libraries, for `papyrax bench`."""
