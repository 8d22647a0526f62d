"""What must be known of a model before anyone acts on it: probabilities, intervals that cover, decisions, subgroups.

calibrators: from scores to probabilities. proportions, auroc, combined: intervals without draws. logistic: regression
with standard errors. operating_points, net_benefit: metrics and worth of decisions. subgroups: the same by group.
A line in `ttc.metrics.clinical.clinical_metrics` puts a new number into every result.
"""
