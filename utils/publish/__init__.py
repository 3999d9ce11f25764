"""All that turns a run into something for others: the book, the results, the Space."""
