"""The tokenizer of a configuration: given, published, kept in the cache, or trained now."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar

from calibtrain.config import TokenizerConfig
from calibtrain.config.ready_made import shipped
from calibtrain.data.tokenizers.byte_level_bpe import BYTE_LEVEL
from calibtrain.data.tokenizers.encoder import HasText
from calibtrain.data.tokenizers.sentencepiece_model import load_model, specials_of
from calibtrain.data.tokenizers.sentencepiece_training import (
    cut_bpe,
    train_sentencepiece,
    trainer_version,
    training_settings,
)
from calibtrain.data.tokenizers.tokenizer import Tokenizer, utf8_bytes
from calibtrain.data.tokenizers.tokenizer_manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    Manifest,
    read_manifest,
)
from calibtrain.data.tokenizers.training_sample import (
    SAMPLE,
    AllTexts,
    SampledTexts,
    draw_texts,
    sample_settings,
)
from calibtrain.errors import UserError, shown
from calibtrain.process.phases import Phase
from calibtrain.storage.places import place
from calibtrain.storage.prepared import prepare_once

UNCUT_HASH = "uncut_model_hash"
"""The setting of a manifest that holds the SHA-256 of the model that a cut one is made of."""
_BATCH = 256  # documents encoded at once when a whole corpus is encoded

_Item = TypeVar("_Item")

_log = logging.getLogger(__name__)


class HasSize(Protocol):
    """The attributes of a split's size that are used here."""

    @property
    def documents(self) -> int: ...
    @property
    def bytes(self) -> int: ...


class HasContentHash(Protocol):
    """The attributes of a corpus's provenance that are used here."""

    @property
    def name(self) -> str: ...
    @property
    def content_hash(self) -> str: ...
    @property
    def splits(self) -> Mapping[str, HasSize]: ...


class HasTrainingText(Protocol):
    """The part of a corpus that is used here."""

    @property
    def provenance(self) -> HasContentHash: ...
    def documents(self, split: Literal["train"], /) -> Sequence[HasText]: ...


def obtain_tokenizer(config: TokenizerConfig, corpus: HasTrainingText, cache: Path) -> Tokenizer:
    """Returns the tokenizer of a configuration: given, published, kept in `cache`, or trained.

    A folder at `config.path` must agree with the configuration. A published or kept tokenizer is
    taken if it was trained on the same corpus, with the same settings, by the same version of the
    trainer. A new one is trained on the training split, or on a sample of it where that is larger
    than `config.sample_bytes` (`training_sample`), checked to be lossless on every document of the
    split, and kept; processes that want the same one at the same time wait for the first. A damaged
    one is trained again.

    Raises:
        UserError: for the reasons of `Tokenizer.load`, `train_tokenizer` and
            `Tokenizer.check_lossless`.
    """
    if config.path is not None:
        try:
            tokenizer = Tokenizer.load(place(config.path))
        except UserError as error:
            raise UserError(f"tokenizer.path: {error}") from None
        check_described(config, tokenizer.manifest)
        return tokenizer
    if config.kind == BYTE_LEVEL:
        raise UserError(
            f"tokenizer.kind: {BYTE_LEVEL} is that of imported models and is not trained here; "
            "name a folder with one as tokenizer.path, or train a unigram or bpe"
        )
    provenance = corpus.provenance
    size = provenance.splits["train"]
    sample = {}
    if config.kind != "byte":
        sample = sample_settings(
            config.sample_bytes, config.sample_seed, size.bytes, size.documents
        )
        if config.sample_seed and not sample:
            _log.warning(
                "note: tokenizer.sample_seed: %d has no effect: tokenizer.sample_bytes (%d) takes "
                "all %d bytes of the training text",
                config.sample_seed,
                config.sample_bytes,
                size.bytes,
            )
    if not sample and (found := find_published(config, provenance.content_hash)):
        return found

    def fill(folder: Path) -> None:
        documents = corpus.documents("train")
        texts = draw_texts(documents, sample[SAMPLE]) if sample else AllTexts(documents)
        tokenizer = train_tokenizer(
            config,
            texts,
            corpus_hash=provenance.content_hash,
            corpus_name=provenance.name,
            sample=sample,
        )
        phase = Phase("checking that the tokenizer is lossless", size.bytes)
        tokenizer.check_lossless(phase.of(documents, lambda document: len(document.text.encode())))
        tokenizer.save(folder)

    settings = {**_settings(config), **sample}
    identity = [FORMAT_VERSION, provenance.content_hash, settings, _trainer(config)]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / "tokenizers" / f"{config.kind}-{config.vocab_size}-{key}"

    def sound(folder: Path) -> bool:
        try:
            manifest = Tokenizer.load(folder).manifest
            return _is_asked_for(manifest, config, provenance.content_hash, sample)
        except UserError:
            return False

    return Tokenizer.load(prepare_once(folder, fill, sound=sound))


def train_tokenizer(
    config: TokenizerConfig,
    texts: Iterable[str],
    *,
    corpus_hash: str,
    corpus_name: str,
    sample: Mapping[str, Any] = MappingProxyType({}),
) -> Tokenizer:
    """Trains a tokenizer on the given texts.

    Args:
        config: kind, size and other settings; the sample is drawn already.
        texts: the text to train on. A sequence is read several times, and anything else is held in
            memory.
        corpus_hash: content hash of the corpus that they are from.
        corpus_name: its name.
        sample: what the manifest says of how they were drawn from it (`sample_settings`).

    Raises:
        UserError: when the texts are empty, or do not allow a vocabulary of `config.vocab_size`;
            the message then names the nearest size that works.
    """
    texts = texts if isinstance(texts, Sequence) else list(texts)
    training_bytes = sum(len(utf8_bytes(text)) for text in texts)
    if not training_bytes:
        raise UserError(f"tokenizer: the training text of corpus {corpus_name} is empty")
    model, settings = None, {**_settings(config), **sample}
    if config.kind != "byte":
        model = train_sentencepiece(config, texts)
    if model is not None and config.cut_from is not None:
        settings = {**settings, UNCUT_HASH: hashlib.sha256(model).hexdigest()}
        model = cut_bpe(model, config.vocab_size)
    manifest = Manifest(
        kind=config.kind,
        vocab_size=config.vocab_size,
        settings=settings,
        corpus=corpus_name,
        corpus_hash=corpus_hash,
        training_bytes=training_bytes,
        training_documents=texts.documents if isinstance(texts, SampledTexts) else len(texts),
        bytes_per_token=1.0,
        trainer=_trainer(config),
        model_hash=None if model is None else hashlib.sha256(model).hexdigest(),
        specials={"bos": 256, "eos": 257} if model is None else specials_of(load_model(model)),
    )
    tokenizer = Tokenizer(manifest, model)
    if model is None:
        return tokenizer
    batches = map(tokenizer.encode_batch, _in_batches(texts))
    tokens = sum(len(ids) for batch in batches for ids in batch)
    tokenizer.manifest = dataclasses.replace(manifest, bytes_per_token=training_bytes / tokens)
    return tokenizer


def check_described(config: TokenizerConfig, manifest: Manifest | None = None) -> None:
    """Checks that the keys of a configuration agree with the tokenizer at its `path`.

    A resolved configuration has every key written out, so there a default is not checked.

    Args:
        config: settings, with a path or without.
        manifest: manifest of the folder; None reads it, and skips a folder that cannot be read.

    Raises:
        UserError: for the first key that disagrees.
    """
    if config.path is None:
        return
    try:
        manifest = manifest or read_manifest(place(config.path))
    except UserError:
        return
    coverage = manifest.settings.get("character_coverage")
    found = {"kind": manifest.kind, "vocab_size": manifest.vocab_size}
    drawn = manifest.settings.get(SAMPLE, {})
    further = {
        "character_coverage": coverage,
        "cut_from": manifest.settings.get("cut_from"),
        "sample_bytes": drawn.get("bytes"),
        "sample_seed": drawn.get("seed", 0),
    }
    fields = type(config).model_fields
    resolved = config.model_fields_set == set(fields)
    for name, value in {**found, **further}.items():
        said = getattr(config, name)
        silent = name not in config.model_fields_set or (
            said == fields[name].default and (resolved or name not in found)
        )
        if said != value and not silent:
            raise UserError(
                f"tokenizer.{name}: {shown(said)} is not that of the tokenizer at tokenizer.path "
                f"({config.path}), which has {shown(value)}; remove tokenizer.{name}, or the path "
                "to train one"
            )


def published_folders() -> list[Path]:
    """Returns the folders of published tokenizers, of the checkout or of the installed package."""
    return [path.parent for path in sorted(shipped("tokenizers").glob(f"*/{MANIFEST_FILE}"))]


def find_published(config: TokenizerConfig, corpus_hash: str) -> Tokenizer | None:
    """Returns the published tokenizer that training would give, or None."""
    for folder in published_folders():
        try:
            if _is_asked_for(read_manifest(folder), config, corpus_hash):
                return Tokenizer.load(folder)
        except UserError as error:  # a damaged one can be trained instead
            _log.warning("published tokenizer left aside: %s", error)
    return None


def _is_asked_for(
    manifest: Manifest,
    config: TokenizerConfig,
    corpus_hash: str,
    sample: Mapping[str, Any] = MappingProxyType({}),
) -> bool:
    """Returns whether training would give this tokenizer."""
    settings = {**_settings(config), **sample}
    return (
        manifest.kind == config.kind
        and manifest.vocab_size == config.vocab_size
        and manifest.corpus_hash == corpus_hash
        and {**manifest.settings, UNCUT_HASH: None} == {**settings, UNCUT_HASH: None}
        and manifest.trainer == _trainer(config)
    )


def _settings(config: TokenizerConfig) -> dict[str, Any]:
    return {} if config.kind == "byte" else training_settings(config)


def _trainer(config: TokenizerConfig) -> str:
    return "none" if config.kind == "byte" else trainer_version()


def _in_batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
