"""One training step's bytes, measured on real tensors or predicted on fake ones."""
