"""gnomon: how fast it will run, and why it was slower."""

__version__ = "0.1.0"
