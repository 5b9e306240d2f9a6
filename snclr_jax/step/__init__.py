"""One training step: read train_step.py first."""
