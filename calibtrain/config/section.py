"""The base class of every section of the configuration tree."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of every section: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
