"""An image set seen through an encoder: what is in it, without labels."""
