"""How good are the features? Frozen features in, accuracies out."""

from snclr_jax.evaluate.knn import knn_accuracy, knn_predict
from snclr_jax.evaluate.linear import LinearResult, linear_probe

__all__ = ["LinearResult", "knn_accuracy", "knn_predict", "linear_probe"]
