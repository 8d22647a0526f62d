"""Figures of the classifiers of a sweep, probes and networks alike: ROC, precision-recall, reliability, confusion."""
