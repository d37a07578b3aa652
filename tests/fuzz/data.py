"""x."""
COUNT = 1
