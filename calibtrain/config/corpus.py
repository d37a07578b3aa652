"""The `corpus` section: the text to train on, and the settings of the synthetic source."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from calibtrain.config.section import Section
from calibtrain.errors import quoted


class MarkovConfig(Section):
    """A word-level Markov source with a Zipfian vocabulary, whose entropy rate is known exactly."""

    words: Annotated[int, Field(ge=2, le=100_000)] = 64
    """Number of distinct words."""
    successors: Annotated[int, Field(ge=1, le=100_000)] = 8
    """How many words may follow a word."""
    zipf: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    """Exponent of the Zipf law behind the transition probabilities."""
    letters: Annotated[int, Field(ge=2, le=26)] = 12
    """Size of the alphabet in which words are spelled."""
    mean_document_words: Annotated[float, Field(gt=1.0, le=1e9)] = 200.0
    """Expected words per document (lengths are geometric)."""
    bytes: Annotated[int, Field(ge=1_000, le=10**12)] = 2_000_000
    """Approximate bytes of text to draw."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the source and of the text drawn from it."""

    @model_validator(mode="after")
    def _successors_exist(self) -> Self:
        if self.successors > self.words:
            raise ValueError(f"successors ({self.successors}) must not exceed words ({self.words})")
        return self


class CorpusConfig(Section):
    """The text to train on, and how its documents are split."""

    name: Annotated[str, Field(min_length=1)] = "kjv"
    """kjv, pydoc, stdlib, markov, files, files:GLOB, or tfds:NAME[/CONFIG]."""
    paths: tuple[str, ...] = ()
    """For `files`: .txt, .jsonl, .jsonl.gz or .parquet files, or globs. A path that exists is taken
    as it is, even if it looks like a glob; in a glob, [[] stands for a bracket."""
    field: Annotated[str, Field(min_length=1)] = "text"
    """The field that holds the text, for .jsonl, .parquet and TFDS data sets."""
    group: Annotated[str, Field(min_length=1)] | None = None
    """The field that names a document's group, for .jsonl, .parquet and TFDS data sets; results are
    also given by group. kjv has groups of its own: the sections of the Bible."""
    sample_bytes: Annotated[int, Field(ge=1_000, le=10**15)] | None = None
    """About how many bytes of the corpus are read: whole documents, drawn by a hash of their text;
    null means all."""
    validation_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Share of the documents held out for validation."""
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Share of the documents held out for testing."""
    markov: MarkovConfig = MarkovConfig()
    """Settings of the `markov` source."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        kind, _, rest = name.partition(":")
        known = ("kjv", "pydoc", "stdlib", "markov", "files")
        if name in known or (kind in ("tfds", "files") and rest):
            return name
        raise ValueError(
            f"{quoted(name)} is no corpus; allowed: kjv, pydoc, stdlib, markov, files, "
            "files:GLOB, tfds:NAME[/CONFIG]"
        )

    @model_validator(mode="after")
    def _paths_fit(self) -> Self:
        if self.paths and self.name != "files":
            raise ValueError(f"paths are only used with name: files, not with {self.name}")
        if self.name == "files" and not self.paths:
            raise ValueError("name: files needs paths, for example paths: [texts/*.txt]")
        return self
