"""The stores that come with the package, one folder each.

A store knows the contracts in `stem_trio.abc` and nothing of producers and workers.
"""
