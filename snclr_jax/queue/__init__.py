"""A ring of rows over the devices, its search and its sums: a memory for objectives."""
