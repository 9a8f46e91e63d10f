"""The nouns that describe: the network, the machine, how it is split, and what is asked of it."""

from gnomon.spec._noun import FrozenMap, Noun
from gnomon.spec.breakdown import MEMORY_TERMS, OPTIONAL_TERMS, TIME_TERMS, MemoryBreakdown, TimeBreakdown
from gnomon.spec.cluster import MOST_TIERS, AcceleratorSpec, ClusterSpec, NetworkTier
from gnomon.spec.curves import CollectiveCurve, Efficiency, GridCurve, SizeCurve
from gnomon.spec.device_rates import DeviceRates
from gnomon.spec.hardware_profile import HardwareProfile
from gnomon.spec.layout import Layout
from gnomon.spec.model import DiffusionSpec, EncoderSpec, MLASpec, ModelSpec, MoESpec
from gnomon.spec.stack import StackSpec
from gnomon.spec.workload import Workload

__all__ = [
    "MEMORY_TERMS",
    "MOST_TIERS",
    "OPTIONAL_TERMS",
    "TIME_TERMS",
    "AcceleratorSpec",
    "ClusterSpec",
    "CollectiveCurve",
    "DeviceRates",
    "DiffusionSpec",
    "Efficiency",
    "EncoderSpec",
    "FrozenMap",
    "GridCurve",
    "HardwareProfile",
    "Layout",
    "MLASpec",
    "MemoryBreakdown",
    "MoESpec",
    "ModelSpec",
    "NetworkTier",
    "Noun",
    "SizeCurve",
    "StackSpec",
    "TimeBreakdown",
    "Workload",
]
