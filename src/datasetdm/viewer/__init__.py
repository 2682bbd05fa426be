"""Looking at a store."""
