"""Corpora: documents and their splits, and the sources they come from."""
