"""The `finetune` section: the run to start from, the examples, the objective, the adapters."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from calibtrain.config.section import Section

LINEAR_MAPS = ("query", "key", "value", "out", "gate", "up", "down")
"""The linear maps of a transformer's layers, by name."""
LSTM_MAPS = ("input", "recurrent", "out")
"""The linear maps of an LSTM's layers, by name."""
KNOWN_MAPS = tuple(dict.fromkeys((*LINEAR_MAPS, *LSTM_MAPS)))


class LoRAConfig(Section):
    """Low-rank adapters (Hu et al., ICLR 2022): W + alpha / rank * A B, with W frozen."""

    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    """Columns of A and rows of B."""
    alpha: Annotated[float, Field(gt=0.0, le=1e6)] = 16.0
    """Scale of the product A B, which is multiplied by alpha / rank."""
    maps: tuple[str, ...] = LINEAR_MAPS
    """Linear maps of every layer that get an adapter; all by default. A transformer has query, key,
    value, out, gate (swiglu only), up and down; an LSTM has input, recurrent and out."""

    @field_validator("maps")
    @classmethod
    def _known(cls, maps: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in maps if name not in KNOWN_MAPS]
        if unknown or not maps:
            said = ", ".join(unknown) or "none"
            raise ValueError(f"{said} given; allowed: {', '.join(KNOWN_MAPS)}")
        return maps


class FinetuningConfig(Section):
    """Settings for training an existing model on examples."""

    run: Annotated[str, Field(min_length=1)]
    """Folder of the run to start from, trained here or imported."""
    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    """JSON-lines files (.jsonl, .jsonl.gz) or globs. Each line has prompt and response; or prompt,
    chosen and rejected; or question, choices and answer (softmax, margin)."""
    objective: Literal["sft", "dpo", "softmax", "margin"] = "sft"
    """sft: the loss on the responses only; dpo: direct preference optimisation on pairs; softmax,
    margin: the right candidate of a question against the wrong ones."""
    beta: Annotated[float, Field(gt=0.0, le=1e3)] = 0.1
    """dpo: factor of the log-probability ratio to the reference, in nats."""
    choices: Annotated[int, Field(ge=2, le=64)] = 4
    """softmax, margin: candidates that every question has; each takes a row."""
    template: str = "Question: {question}\nAnswer: {answer}"
    """softmax, margin: how a question becomes text."""
    epochs: Annotated[float, Field(gt=0.0, le=1e4)] = 1.0
    """Passes over the examples; replaces a budget."""
    validation_fraction: Annotated[float, Field(gt=0.0, le=0.5)] = 0.1
    """Share of the examples held out; calibration is measured on their answers."""
    context: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Tokens per example at most; null means those of the longest, up to the model's context."""
    lora: LoRAConfig | None = None
    """Train adapters and freeze the rest; null means that every parameter is trained."""
    started_from: str | None = None
    """Configuration hash and checkpoint step of the run to start from; filled in by calibtrain."""
    examples: str | None = None
    """Hash of the files of examples; filled in by calibtrain."""
