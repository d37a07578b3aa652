"""Lossless tokenizers: bytes in, ids out, and the exact bytes of each id."""
