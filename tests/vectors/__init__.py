"""Generators of the published test vectors; each is also a script."""
