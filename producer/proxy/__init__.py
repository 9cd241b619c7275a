"""A local server that speaks OpenAI's API; trusted, on the client's own machine.

What comes in is sealed to attested workers, and nothing is handed on that was not judged first:
evidence, outcome and receipt, by the code that judges tickets. See docs/proxy.md.
"""
