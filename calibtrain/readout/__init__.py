"""Hidden states x unembedding -> `TokenStats`, a chunk of tokens at a time."""

from calibtrain.readout.accumulation import accumulate
from calibtrain.readout.cotangents import Cotangents, Reduction
from calibtrain.readout.projection import (
    additive_loss,
    log_probabilities,
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
from calibtrain.readout.top_logits import largest

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
    "largest",
    "log_probabilities",
    "probabilities",
    "readout",
    "statistics",
]
