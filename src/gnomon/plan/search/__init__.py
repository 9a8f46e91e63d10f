"""All layouts of a model on a cluster: which can run, which fit, which are fast, and why the others lost."""
