"""From an image file to the stored square of bytes, and the object that says how.

`Preprocessing` holds every value that decides a pixel. It travels in the checkpoint, and training, evaluation,
prediction and export read nothing else. A new file format is one more branch in `decoding.read_samples`.
"""
