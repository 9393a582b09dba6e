"""The shared blocks, one of each. Blocks receive built parts; none keeps state between calls."""
