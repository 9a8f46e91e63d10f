"""The network as a graph: where it is read from, how good a placement is, a better one, and its picture."""
