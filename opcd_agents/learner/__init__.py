"""From episodes to weights: objectives, the update, checkpoints, the distillation loop."""
