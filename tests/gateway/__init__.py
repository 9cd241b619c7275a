"""The gateway: store, uploads, API, on SQLite and PostgreSQL."""
