"""The image sets that the package draws itself; without JAX."""

EMBEDDED = {"digits": 1, "digit_pairs": 2}  # digits in a picture, by data.name
