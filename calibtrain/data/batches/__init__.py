"""Tokenised text as rows, for training and for evaluation."""
