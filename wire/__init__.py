"""The shared ground: formats, sealing and errors. Pure: no clock, no I/O."""
