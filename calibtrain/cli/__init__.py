"""Groups of commands, a file each, that `cli/main.py` puts together."""
