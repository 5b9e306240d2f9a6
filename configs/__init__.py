"""Recipes, importable as `snclr_jax.configs`."""
