"""Counting and placing work on devices."""
