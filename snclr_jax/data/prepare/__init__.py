"""`snclr prepare`: a folder or a tar of images becomes a TFDS set.

`prepare` in `run.py` is the whole command: `sources.py` finds the images, `checking.py`
reads and decodes each once, `shards.py` writes them so that a kill costs one shard,
`parts.py` divides them among processes, and `metadata.py` makes a set of them.
"""
