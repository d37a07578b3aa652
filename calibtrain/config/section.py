"""What sections of the configuration are made of: their base class, and types they share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=10**18)]
Cadence = Annotated[int, Field(ge=1, le=2**31 - 1)]  # steps are counted in 32 bits
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of every section: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def exactly_one(section: Section) -> Any:
    """Raises a ValueError unless exactly one field of a section is given; returns the section."""
    names = list(type(section).model_fields)
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) != 1:
        said = " and ".join(given) if given else "none of them"
        raise ValueError(f"give exactly one of {', '.join(names)}; {said} given")
    return section
