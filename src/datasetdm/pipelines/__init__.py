"""What a user starts: fit, generate, annotate, evaluate."""
