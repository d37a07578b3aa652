"""Hidden states x unembedding -> `TokenStats`, a chunk of tokens at a time."""

from calibtrain.readout.projection import (
    Cotangents,
    Reduction,
    accumulate,
    additive_loss,
    probabilities,
    readout,
)
from calibtrain.readout.token_stats import (
    FIELDS,
    Functional,
    TokenStats,
    first_largest,
    is_entry,
    statistics,
)

__all__ = [
    "FIELDS",
    "Cotangents",
    "Functional",
    "Reduction",
    "TokenStats",
    "accumulate",
    "additive_loss",
    "first_largest",
    "is_entry",
    "probabilities",
    "readout",
    "statistics",
]
