"""What a run is on disk: records (the JSON files, one class each) and the results of a folder.

Importing this room loads neither JAX nor NumPy, so that a notebook and a report open at once.
"""
