"""Reads and writes models of the Llama family in Hugging Face's formats, and reads GGUF files."""
