"""Decoding a token or a byte at a time: model states, byte trie, byte beam."""
