"""One file per data source.

A new source is one file with `read(settings) -> Source` and one line in `ttc.datasets.registry.READERS`.
"""
