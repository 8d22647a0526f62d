"""What is looked at before anything is trained: which files count, spellings, leaks, and the report of all of it.

A new check is a function that raises ValueError for a training, and a line of `report.examine`.
"""
