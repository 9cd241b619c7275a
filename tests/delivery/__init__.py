"""One suite over all brokers: sealed jobs through real workers, and chaos with an auditor at its end."""
