"""Which source? Comparisons of sources on the same target, and the baselines beside them."""
