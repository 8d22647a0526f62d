"""What a result must say before somebody acts on it: probabilities, intervals that cover, decisions, subgroups.

calibrators: from scores to probabilities. proportions, auroc: intervals without draws. logistic: regression with
standard errors. operating_points, net_benefit: what decisions reach and are worth. subgroups: the same by group.
A new number comes with a line of `ttc.metrics.clinical.clinical_metrics` that puts it into every result.
"""
