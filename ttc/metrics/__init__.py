"""Numbers only: representation metrics, classification metrics, intervals; no drawing, no files. clinic/: decisions."""
