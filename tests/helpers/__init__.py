"""What several test files use, by what it is about. No test imports another test."""
