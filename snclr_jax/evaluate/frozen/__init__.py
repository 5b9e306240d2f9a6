"""Evaluations that read frozen features."""
