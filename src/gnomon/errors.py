"""The exception tree, and the wording that every error shares.

    GnomonError                  anything the user can mend; shown as one message, never as a traceback
    ├── SpecError                a model, cluster, layout or workload that cannot be
    │   └── LayoutError          a split that does not divide or is not supported
    ├── CatalogError             a catalog name that does not exist
    ├── ConfigError              a configuration that does not compose or validate
    │   └── UntrustedTargetError a `_target_` outside the trusted packages
    ├── PipelineError            steps that do not fit together
    ├── PlanError                a workload that the planner refuses to price
    ├── DataError                training data that is missing or too small
    ├── RunDirectoryError        a run directory that exists, is missing or is damaged
    ├── CheckpointError          a checkpoint that cannot be written or read
    ├── TrainingError            a loss or gradient that is not finite
    ├── LaunchError              processes that cannot be started
    │   ├── PortInUseError       the rendezvous port belongs to someone else
    │   └── RankFailedError      a rank died
    ├── CalibrationError         a machine that cannot be measured
    ├── ReportError              run directories that do not make a report
    └── InterruptedRunError           Ctrl-C or SIGTERM, after the checkpoint was written

    GnomonWarning                something went wrong, and the run goes on
    ├── TrackerWarning           rows that cannot be written or sent for now
    └── CheckpointWarning        a damaged checkpoint that was passed over

Each message says what was set, what was found and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SLIP = 0.8  # share of letters that two names have in common: one in five is wrong
MOST_DIVISORS = 65536


class GnomonError(Exception):
    """Something the user can mend; the command line prints it without a traceback and exits with `exit_code`."""

    exit_code = 1


class SpecError(GnomonError):
    """A model, cluster, layout or workload that cannot be."""


class LayoutError(SpecError):
    """A split that does not divide or is not supported."""


class CatalogError(GnomonError):
    """A catalog name that does not exist."""


class ConfigError(GnomonError):
    """A configuration that does not compose or validate."""


class UntrustedTargetError(ConfigError):
    """A `_target_` that is not in a trusted package."""


class PipelineError(GnomonError):
    """Steps that do not fit together."""


class PlanError(GnomonError):
    """A workload that the planner refuses to price."""


class DataError(GnomonError):
    """Training data that is missing or too small."""


class RunDirectoryError(GnomonError):
    """A run directory that exists already, is missing or is damaged."""


class CheckpointError(GnomonError):
    """A checkpoint that cannot be written or read."""


class TrainingError(GnomonError):
    """A loss or gradient that is not finite."""


class LaunchError(GnomonError):
    """Processes that cannot be started."""


class PortInUseError(LaunchError):
    """The rendezvous port belongs to another process."""


class RankFailedError(LaunchError):
    """A rank died; the others were stopped."""


class CalibrationError(GnomonError):
    """A machine that cannot be measured."""


class ReportError(GnomonError):
    """Run directories that do not make a report."""


class InterruptedRunError(GnomonError):
    """Ctrl-C or SIGTERM arrived; what could be saved was saved."""

    exit_code = 130


class GnomonWarning(UserWarning):
    """Something went wrong, and the run goes on."""


class TrackerWarning(GnomonWarning):
    """Rows that cannot be written or sent for now."""


class CheckpointWarning(GnomonWarning):
    """A damaged checkpoint that was passed over."""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that is nearest to `name`, or None when none is near."""
    return next(iter(difflib.get_close_matches(str(name), sorted({str(v) for v in valid}), n=1, cutoff=0.6)), None)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return a sentence that names the nearest valid name, or all valid ones when none is near.

    Names that contain what was typed go before those that only look like it, unless one alone is a slip away.
    """
    options = sorted({str(v) for v in valid})
    typed = str(name).lower()
    longer = [option for option in options if len(typed) > 1 and typed in option.lower()]
    near = nearest(name, options)
    begun = [option for option in longer if option.lower().startswith(typed)]
    slips = [n for n in difflib.get_close_matches(str(name), options, n=2, cutoff=SLIP) if len(n) >= len(typed)]
    if len(slips) == 1 and not (slips[0] in begun and len(begun) > 1):
        near = slips[0]
    elif len(longer) > 1:
        return f"Names that contain it: {', '.join(longer)}."
    elif longer:
        near = longer[0]
    if near is not None:
        return f"Did you mean '{near}'?"
    return f"Valid names: {', '.join(options)}." if options else ""


def nearest_numbers(name: str, value: int, valid: Iterable[int]) -> str:
    """Return the valid numbers on both sides of `value`, as settings of `name`: `tp=2 or tp=4`."""
    numbers = sorted(valid)
    near = [n for n in numbers if n < value][-1:] + [n for n in numbers if n > value][:1]
    return " or ".join(f"{name}={n}" for n in near or [1])


def nearest_divisors(name: str, value: int, whole: int) -> str:
    """Return the divisors of `whole` on both sides of `value`, as settings of `name`."""
    return nearest_numbers(name, value, (d for d in range(1, min(whole, MOST_DIVISORS) + 1) if whole % d == 0))
