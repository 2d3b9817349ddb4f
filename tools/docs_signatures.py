"""Signatures in the library's reference of methods that take the fields of a record as keyword arguments."""

from __future__ import annotations

from typing import Any

import griffe

__all__ = ["FieldsAsArguments"]


class FieldsAsArguments(griffe.Extension):  # type: ignore[misc, unused-ignore]  # where griffe is not installed
    """Document what Python makes of the source: fields as arguments, and a method of an object as a function."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace the record by its fields."""
        if any(str(decorator.value).startswith("takes_fields(") for decorator in func.decorators):
            own, record = list(func.parameters)
            kind: Any = griffe.ParameterKind.var_keyword  # annotated as str there
            fields = griffe.Parameter("fields", kind=kind, annotation=record.annotation)
            func.parameters = griffe.Parameters(own, fields)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Document ``search = Workspace().search`` as a function."""
        workspace = pkg["api.workspace"]
        method = workspace["Workspace.search"]
        parameters = griffe.Parameters(*list(method.parameters)[1:])
        function = griffe.Function("search", parameters=parameters, returns=method.returns, docstring=method.docstring)
        workspace.set_member("search", function)
