"""How good are the features? Encoders and image sets in, accuracies out."""
