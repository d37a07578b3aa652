"""A network, its head and rows in, `TokenStats` out: where text meets a model to be scored."""
