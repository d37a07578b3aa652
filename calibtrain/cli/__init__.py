"""The command line: groups of commands, one per file, which `cli/main.py` combines."""
