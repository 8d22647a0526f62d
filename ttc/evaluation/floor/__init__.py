"""The floor of a table: plain classifiers of raw pixels on the same splits.

models: what is fitted; fits: small images, draws and the cache; measure: the floor as a probe, and who clears it.
"""
