"""Groups of commands, a file each, that `cli.py` puts together."""
