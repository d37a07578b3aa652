"""What is read off traces: the band of held-out text, and alarms along a text."""
