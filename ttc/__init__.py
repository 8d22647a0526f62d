"""Supervised contrastive learning on binary imbalanced images: the parts that the scripts share."""
