"""The process that runs: run directory, rank environment, devices, seeds, signals."""
