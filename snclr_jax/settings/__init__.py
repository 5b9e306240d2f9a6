"""Checks of a config; the recipes and their base stay in configs/."""
