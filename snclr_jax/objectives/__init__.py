"""What a step minimizes: one file for each objective."""
