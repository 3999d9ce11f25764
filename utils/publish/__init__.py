"""What is made of a run for others: the book, the results, the Space."""
