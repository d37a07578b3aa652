"""Hostile inputs from fixed seeds (`make fuzz`): configurations, texts, damaged runs and imports.

Every case is a folder with something wrong in it and one command or more. What must hold of each is
in `verdict`; how a command is run without starting Python anew is in `forked` and `children`.
"""
