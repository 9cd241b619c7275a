"""Webhooks: events of a tenant, signed (Standard Webhooks 1.0) and sent to where the tenant wants them.

Untrusted: bodies hold ciphertext, outcomes and public values only. What is trusted, opening them in
the receiver, is :mod:`ephemeralml.producer.webhooks`.
"""
