"""What text that a model generates shows of it."""
