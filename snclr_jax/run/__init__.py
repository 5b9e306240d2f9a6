"""What a run leaves on disk, and who reads it."""
