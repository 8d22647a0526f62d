"""From a frozen or fine-tuned network to results: features, probes, heads, predictions, export."""
