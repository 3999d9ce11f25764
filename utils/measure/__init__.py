"""All that measures time and accuracy: of a step, of whole trainings, of the Space's answers."""
