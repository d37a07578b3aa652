"""Models of different vocabularies that decode together."""
