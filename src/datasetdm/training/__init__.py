"""The training loop and what it reads: augmented views and their cached features."""
