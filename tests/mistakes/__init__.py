"""Deliberate mistakes, which `test_mistakes.py` makes one at a time."""
