"""Evaluations that train on augmented images, the encoder frozen or not."""
