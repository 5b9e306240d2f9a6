"""What a run's own networks and memory show."""
