"""The client's commands; :mod:`ephemeralml.cli` puts them beside the workers'."""
