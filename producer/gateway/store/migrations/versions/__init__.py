"""Changes of the tables, oldest first; each names the one before it."""
