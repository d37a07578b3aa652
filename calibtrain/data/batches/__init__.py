"""Tokenised text as rows: for training, for evaluation, for reading byte by byte."""
