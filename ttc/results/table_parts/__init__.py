"""What tables show: their columns, the table that papers print, the names of rows, the word for a collapse.

A new column is one line in `columns`; a classifier of another script one line in `paper`.
"""

WIDTH = 100
"""Characters of a line of a table in a terminal."""
