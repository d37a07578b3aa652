"""Decoding a token or a byte at a time: states, byte trie, byte beam, next-byte distribution."""
