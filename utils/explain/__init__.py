"""What a trained network gets wrong, where it looked, and how to ask it about other pictures."""
