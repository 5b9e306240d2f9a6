"""What this package uses of ml_collections, which has no annotations of its own.

A field of a config is `Any`. Left to the type checker, its type would be guessed from
ml_collections' code, as a number, a text, a list or None: whatever it may hold.
"""

from ml_collections.config_dict import ConfigDict as ConfigDict
from ml_collections.config_dict import FrozenConfigDict as FrozenConfigDict
