"""One page about a run: what it measured, what it sees, how it was set."""
