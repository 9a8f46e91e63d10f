"""Packaged configurations and config groups, on the search path of every composition."""
