"""What a result says to those who act on it: tables, figures and the report card of a run."""
