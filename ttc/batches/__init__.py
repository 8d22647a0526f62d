"""What a batch holds: which samples (samplers), how they are augmented (augment), and minority CutMix.

A new sampler is a function in samplers.py and its name in SAMPLERS; a new augmentation a field of `Augmentation`.
"""
