"""Filters that need more than a sample: labelled data to compare with, or what the models saw while it was made."""
