"""Stand in for a field's value, and notice where a template takes it for a list, a mapping or a number."""

from __future__ import annotations

from typing import Any, NoReturn


class TypeStub(str):
    """A text; `uses` names the operations that were tried on it, or on a slice of it, and that a text does not have.

    Order and iteration are among them: what a template sorts, compares or goes through is seldom meant to be text.
    """

    uses: list[str]

    def __new__(cls, text: str, uses: list[str] | None = None) -> TypeStub:
        self = super().__new__(cls, text)
        self.uses = [] if uses is None else uses
        return self

    def __getattr__(self, name: str) -> NoReturn:
        if not name.startswith("_"):
            self.uses.append(name)
        raise AttributeError(name)

    def __getitem__(self, key: Any) -> TypeStub:
        if not isinstance(key, slice):
            self._refuse("[]")
        return TypeStub(super().__getitem__(key), self.uses)

    def __add__(self, other: Any) -> str:
        return super().__add__(other) if isinstance(other, str) else self._refuse("+")

    def __radd__(self, other: Any) -> str:
        return str(other) + str(self) if isinstance(other, str) else self._refuse("+")

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) if isinstance(other, str) else self._refuse("==")

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __format__(self, specification: str) -> str:
        try:
            return super().__format__(specification)
        except ValueError:
            self._refuse(specification)

    def _refuse(self, use: str) -> NoReturn:
        self.uses.append(use)
        raise TypeError(f"text has no {use}")


def _refusing(name: str) -> Any:
    return lambda self, *given: self._refuse(name)


_ORDER = ("iter", "lt", "le", "gt", "ge")
_ARITHMETIC = ("sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "mod", "pow", "neg", "abs")
_CONVERSIONS = ("round", "int", "float", "index")
for _name in (*_ORDER, *_ARITHMETIC, *_CONVERSIONS):
    setattr(TypeStub, f"__{_name}__", _refusing(_name))
