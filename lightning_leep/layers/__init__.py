"""Which layers came from the source, and which of them are trained."""
