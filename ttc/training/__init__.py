"""What the training loops share: state, reporter, monitor, embedder, early stopping, plan."""
