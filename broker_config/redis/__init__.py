"""Redis, the embedded one and those of others: leases by script, hardened transport, clients."""
