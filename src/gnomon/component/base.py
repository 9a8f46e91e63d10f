"""The base class of every workflow step: `execute(*inputs) -> outputs`, usable alone."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from abc import ABC, abstractmethod
from typing import Any

_RECORD = "_gnomon_settings"


class Component(ABC):
    """One step of work. Subclasses take their settings in `__init__` and their inputs in `execute`.

    The settings that an object was made with are remembered; `settings_of` returns them.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _remembering(cls.__dict__["__init__"])  # type: ignore[method-assign]

    @property
    def name(self) -> str:
        """Name shown in messages; the class name unless a pipeline gives the step another."""
        return type(self).__name__

    @abstractmethod
    def execute(self, *inputs: Any) -> Any:
        """Do the work and return the outputs: None for none, a tuple for several, anything else for one."""

    def cleanup(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of what `execute` needed; called once after each execution, also one that failed. Does nothing here.

        What `execute` returned is used after it, so it must not depend on what is let go of.
        """


def settings_of(component: Component) -> dict[str, Any] | None:
    """Return the arguments that a component was made with, defaults included; None where they are not known.

    They are known for a class with an `__init__` of its own or none at all, and for a dataclass.
    """
    record = component.__dict__.get(_RECORD)
    if record is not None:
        args, kwargs = record
        bound = inspect.signature(type(component).__init__).bind(component, *args, **kwargs)
        bound.apply_defaults()
        return dict(list(bound.arguments.items())[1:])
    if dataclasses.is_dataclass(component):
        return {field.name: getattr(component, field.name) for field in dataclasses.fields(component) if field.init}
    return {} if type(component).__init__ is object.__init__ else None


def _remembering(init: Any) -> Any:
    """Wrap an `__init__`, of which the outermost call writes down its arguments; the signature stays the same."""

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if _RECORD not in self.__dict__:
            self.__dict__[_RECORD] = (args, kwargs)  # past any __setattr__ of the class
        init(self, *args, **kwargs)

    return wrapped
