"""Many runs as one piece of work: a grid of parameters, each cell a run, shared among workers."""
