"""Ready components that wrap the verbs; together they are the loop from calibration to report."""

from gnomon.pipeline.steps.calibrate import Calibrate
from gnomon.pipeline.steps.compare import Compare
from gnomon.pipeline.steps.plan import Plan
from gnomon.pipeline.steps.profile import Profile
from gnomon.pipeline.steps.report import Report
from gnomon.pipeline.steps.train import Train

__all__ = ["Calibrate", "Compare", "Plan", "Profile", "Report", "Train"]
