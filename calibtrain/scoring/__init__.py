"""Text scored under a model: the one place where batches of text become statistics of tokens."""
