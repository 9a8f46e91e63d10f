"""Measure: the machine by micro-benchmarks, a run by the profiler."""
