"""The cost of a compiled program, read from its text."""
