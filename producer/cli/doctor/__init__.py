"""``doctor``: what is missing on this machine or in its deployment, why it matters, what to do."""

from .command import doctor

__all__ = ["doctor"]
