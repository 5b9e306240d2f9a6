"""SNCLR in JAX: contrastive pretraining with soft neighbors as positive supporters.

`snclr_jax.train_step` is the file to read first; `snclr_jax.train.train` runs a config.
"""

__version__ = "0.1.0"
