"""The relay: puts packs onto the queue, stores what comes back, brings batches to their end, sends webhooks.

Untrusted like the gateway: it sees ciphertext, outcomes, hashes and times. Everything it does is written in
the store before or after, so that it may be killed at any point, and several may run on one store at once.
"""
