"""What the networks of a run and the memory of its objective show."""
