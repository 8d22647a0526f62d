"""Encoders, projection head, BatchNorm over ranks, optimizers, and what a checkpoint says about its network."""
