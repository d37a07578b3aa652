"""The `tokenizer` section: how text becomes tokens."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from calibtrain.config.section import Section


class TokenizerConfig(Section):
    """How text becomes tokens. Trained on the training split only; always lossless."""

    kind: Literal["unigram", "bpe", "byte", "byte_level_bpe"] = "unigram"
    """SentencePiece unigram or BPE with byte fallback; plain bytes; or byte-level BPE, which only
    imported models have."""
    vocab_size: Annotated[int, Field(ge=258, le=1_000_000)] = 1024
    """Number of pieces, including the 256 byte pieces and the special tokens (`byte`: 258)."""
    character_coverage: Annotated[float, Field(ge=0.98, le=1.0)] = 0.9995
    """Share of the characters that get their own piece; the others are spelled in bytes."""
    cut_from: Annotated[int, Field(ge=258, le=1_000_000)] | None = None
    """Train a BPE of this many pieces and keep the first vocab_size of them, so that vocabularies
    of several sizes are nested (bpe)."""
    sample_bytes: Annotated[int, Field(ge=1_000, le=10**15)] | None = 40_000_000
    """About how many bytes of the training text a unigram or bpe is trained on: documents drawn by
    a hash of their text, of which long ones count as several; null means all. A smaller text is
    used whole. Training takes about 25 bytes of memory per byte (unigram), or 13 (bpe)."""
    sample_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the hash by which the sample is drawn."""
    path: str | None = None
    """Folder of a tokenizer (tokenizer.model, manifest.json) to use instead of training one."""

    @model_validator(mode="after")
    def _cut_is_possible(self) -> Self:
        if self.cut_from is not None and self.kind != "bpe":
            raise ValueError(
                f"cut_from {self.cut_from} is used with kind: bpe alone, whose pieces stand in the "
                f"order of merges, not with {self.kind}"
            )
        if self.cut_from is not None and self.cut_from < self.vocab_size:
            raise ValueError(
                f"cut_from ({self.cut_from}) must be at least vocab_size ({self.vocab_size})"
            )
        return self

    @model_validator(mode="after")
    def _byte_vocabulary(self) -> Self:
        if self.kind == "byte":
            if "vocab_size" in self.model_fields_set and self.vocab_size != 258:
                raise ValueError(
                    f"vocab_size {self.vocab_size} does not fit kind: byte, which has 258"
                )
            # set past pydantic, so that it does not count as given: another kind gets the default
            self.__dict__["vocab_size"] = 258
        return self
