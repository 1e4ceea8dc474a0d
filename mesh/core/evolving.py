"""`dataclasses.replace`, many times as fast, for states of many fields that change at each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

__all__ = ["evolve"]

State = TypeVar("State")

if TYPE_CHECKING:
    from dataclasses import replace as evolve
else:

    def evolve(state: State, /, **changes: object) -> State:
        """The same with some fields changed. For frozen dataclasses without `slots`.

        Two dicts are copied where `replace` reads and sets each field by itself: with the fifteen
        of a failure detector that was a third of what a mesh of a thousand took. Nothing is
        computed from the fields: no `__post_init__` is called.

        Raises:
            TypeError: there is no such field.
        """
        known = state.__dict__
        fields = known | changes
        if len(fields) != len(known):
            unknown = ", ".join(sorted(fields.keys() - known.keys()))
            raise TypeError(f"{type(state).__name__} has no field {unknown}")
        evolved = object.__new__(type(state))
        object.__setattr__(evolved, "__dict__", fields)
        return evolved
