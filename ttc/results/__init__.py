"""What reads finished runs: collected results, tables, figures, the HTML report, the model card."""
