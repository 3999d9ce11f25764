"""All that turns pictures and a recipe into a trained network, and reads what training logged."""
