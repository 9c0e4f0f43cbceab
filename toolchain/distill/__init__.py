"""Code that changes a model's weights so that its outputs come close to a teacher's: `shrink`, `heal`, and training."""
