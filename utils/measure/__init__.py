"""What a step, a training and a visitor's answer cost."""
