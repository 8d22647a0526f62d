"""What one command makes of an experiment on own data: the model that validation chooses, and its page."""
