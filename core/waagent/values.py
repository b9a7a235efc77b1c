"""What the frozen values of the public API have in common: they compare and show themselves by their fields, and what
plugins make is looked at where they make it.

attrs would generate the same three methods for every class; here they exist once. That saves 13 kB and 0.25 ms a class
in each process that loads them (measured.md §2).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    import attrs


class Checked:
    """Base of attrs classes that plugins make and the core relies on.

    A field of the wrong type is an error of the plugin that makes the value, in a call that is contained, and not of
    the core that uses it later.
    """

    __slots__ = ()
    if TYPE_CHECKING:
        TYPES: ClassVar[dict[str, tuple[Any, ...]]]
    TYPES = {}
    """What a field may be, by its name."""

    def __attrs_post_init__(self) -> None:
        for name, wanted in self.TYPES.items():
            value = getattr(self, name)
            if not isinstance(value, wanted):
                words = " or ".join("None" if one is type(None) else one.__name__ for one in wanted)
                raise TypeError(f"{type(self).__name__}.{name} is {type(value).__name__} instead of {words}")


class Value:
    """Base of attrs classes made with ``eq=False, repr=False``."""

    __slots__ = ()
    if TYPE_CHECKING:
        __attrs_attrs__: ClassVar[tuple[attrs.Attribute[Any], ...]]

    def _compared(self) -> tuple[object, ...]:
        return tuple(getattr(self, field.name) for field in self.__attrs_attrs__ if field.eq)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or type(other) is not type(self):
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def __repr__(self) -> str:
        shown = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in self.__attrs_attrs__ if field.repr)
        return f"{type(self).__name__}({shown})"
