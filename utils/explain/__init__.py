"""All that asks a trained network: what it gets wrong, where it looks, what other pictures show."""
