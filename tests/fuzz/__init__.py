"""Hostile inputs from fixed seeds: configurations, data files, damaged runs and imports (`make fuzz`).

Every case is a folder with something wrong in it and one command or more. What must hold of each is
in `verdict`; how a command is run without starting Python anew is in `children`.
"""
