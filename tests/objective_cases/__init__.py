"""A file for each objective: its oracle in numpy, and what was recorded of others."""
