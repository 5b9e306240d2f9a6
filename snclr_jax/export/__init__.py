"""Encoders for other tools, in their names and layouts, and from them."""
