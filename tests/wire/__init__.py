"""Tests of the formats, of sealing and of the strict COSE door."""
