"""A program among others: its streams, signals and limits."""
