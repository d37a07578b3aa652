"""Fine-tuning: from which run, on which examples, towards what, and what of it is changed."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from calibtrain.config.section import Section

LINEAR_MAPS = ("query", "key", "value", "out", "gate", "up", "down")
"""The linear maps of a transformer's layers, by name."""
LSTM_MAPS = ("input", "recurrent", "out")
"""Those of an LSTM's layers."""
KNOWN_MAPS = tuple(dict.fromkeys((*LINEAR_MAPS, *LSTM_MAPS)))


class LoRAConfig(Section):
    """Low-rank adapters (Hu et al., ICLR 2022): W + alpha / rank * A B, with W left as it is."""

    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    """Columns of A and rows of B."""
    alpha: Annotated[float, Field(gt=0.0, le=1e6)] = 16.0
    """What the product is multiplied by, times the rank."""
    maps: tuple[str, ...] = LINEAR_MAPS
    """Linear maps of every layer that get an adapter; default all. A transformer has query, key,
    value, out, gate (swiglu alone), up and down; an LSTM has input, recurrent and out."""

    @field_validator("maps")
    @classmethod
    def _known(cls, maps: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in maps if name not in KNOWN_MAPS]
        if unknown or not maps:
            said = ", ".join(unknown) or "none"
            raise ValueError(f"{said} given; allowed: {', '.join(KNOWN_MAPS)}")
        return maps


class FinetuningConfig(Section):
    """What a model that is there already is trained on, instead of its corpus."""

    run: Annotated[str, Field(min_length=1)]
    """The run to start from: a folder of one that was trained here, or imported."""
    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    """JSON lines (.jsonl, .jsonl.gz; globs allowed) of prompt and response, or of prompt, chosen
    and rejected."""
    objective: Literal["sft", "dpo"] = "sft"
    """sft: the loss on the responses alone; dpo: direct preference optimisation on pairs."""
    beta: Annotated[float, Field(gt=0.0, le=1e3)] = 0.1
    """dpo: how much a nat of log-probability over the reference's counts."""
    epochs: Annotated[float, Field(gt=0.0, le=1e4)] = 1.0
    """Passes over the examples; in the place of a budget."""
    validation_fraction: Annotated[float, Field(gt=0.0, le=0.5)] = 0.1
    """Share of the examples held out; calibration is measured on their answers."""
    context: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Tokens an example may have; null means those of the longest, at most the model's context."""
    lora: LoRAConfig | None = None
    """Train adapters and leave the rest as it is; null means that every parameter is trained."""
    started_from: str | None = None
    """Hash of the configuration and step of the run's checkpoint; filled in."""
    examples: str | None = None
    """Hash of the files of examples; filled in."""
