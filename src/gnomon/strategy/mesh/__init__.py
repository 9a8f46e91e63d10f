"""A decoder split over a mesh of ranks: data, context, tensor, pipeline and expert parallelism, and ZeRO."""

from gnomon.strategy.mesh.strategy import MeshStrategy

__all__ = ["MeshStrategy"]
