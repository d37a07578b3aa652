"""Questions with known answers: from a file, or made from data that is installed."""
