"""Trains a small text-to-image model on captioned renders: a VAE, then a UNet with its text encoder.

Every stage keeps what it learnt in a work folder and goes on from there. `python -m miniworld.pretrain --help`.
"""


class PretrainError(Exception):
    """Something that the caller can put right, in one sentence; the command line exits with 2."""
