"""An encoder on its own: stored, loaded, and a start for another run."""
