"""The process and the system around it: streams, signals and limits."""
