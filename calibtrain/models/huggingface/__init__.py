"""Models of the Llama family in the formats of others: what their files say, read and written."""
