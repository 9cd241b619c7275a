"""Servers that stand for the vendors' in tests, each a real process on this machine."""
