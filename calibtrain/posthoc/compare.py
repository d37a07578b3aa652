"""Every head fitted on the validation split, and measured on test splits, in and out of domain.

The model is compared with a head and without, on the same documents, and the interval is that of
the difference. A head may lower the ECE and raise the nll, so both are always shown.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import calibtrain
from calibtrain.config import HEADS
from calibtrain.data.corpora.named import columns_of
from calibtrain.errors import UserError
from calibtrain.evaluation.figure_intervals import document_notes
from calibtrain.fitting.head import FittedHead, Recipe
from calibtrain.posthoc.comparison_rows import (
    ERRORS_COVER,
    comparison_row,
    score_text,
    signature_of,
)
from calibtrain.posthoc.fit import (
    check_fits_model,
    checkpoint_of,
    describe_text,
    fitted_on,
    head_settings,
    require_headless,
)
from calibtrain.posthoc.hidden_text import Progress, read_hidden_text
from calibtrain.posthoc.kept_heads import fit_once
from calibtrain.process.interruption import leaving
from calibtrain.runs.loading import SavedRun, opened
from calibtrain.runs.records import (
    HEADS_FILE,
    CheckpointRecord,
    FittedOn,
    HeadComparisonRecord,
    HeadRow,
    HeadTable,
)
from calibtrain.storage.disk import make_folder
from calibtrain.storage.documents import FORMAT
from calibtrain.temperature import make_head


def compare_heads(
    path: Path,
    *,
    heads: Sequence[str] | None = None,
    corpora: Sequence[str] = (),
    fields: Sequence[str] = (),
    limit: int | None = None,
    recipe: Recipe | None = None,
    keep: bool = True,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda done, total: None,
    stage: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Fit heads on the validation split of a run's corpus and measure them on test splits.

    Writes RUN/temperature/comparison.json, which the run's report shows. Heads that were fitted to
    the same text before, by a comparison that was stopped too, are not fitted again.

    Args:
        path: the run folder.
        heads: kinds of heads; None means all that the model can have.
        corpora: the corpora whose test splits are read; none given means the run's own.
        fields: fields of their texts: one for all that have fields, or one for each in order.
        limit: about how many bytes of each text are read; None means all.
        recipe: how heads are fitted, unless the fit is exact.
        keep: whether hidden states are kept in the cache.
        cache: the folder of prepared data.
        say: is told in words what is done.
        progress: is told the number of batches or steps done, and of all of a stage.
        stage: is told in words what is begun, such as "head 3 of 7: linear".

    Returns:
        `fitted_on`, `checkpoint`, and for each of `corpora` its `rows`: one for no head, then one
        for each head, with figures, their intervals and signatures, and `differences` to no head
        with their intervals.

    Raises:
        UserError: as `fit.fit_temperature_head` does.
    """
    if len(set(corpora)) < len(corpora):
        twice = next(name for name in corpora if list(corpora).count(name) > 1)
        raise UserError(f"--corpus: {twice} is named twice; name each corpus once")
    columns = columns_of(corpora, fields, [""] * len(corpora))  # groups are not read here
    with opened(path, cache, columns=columns, say=say) as saved:
        require_headless(saved)
        chosen = _kinds(saved, heads)
        names: list[str | None] = list(corpora) or [None]
        for name in names:
            saved.store(name, "test")  # so that a text that cannot be had is refused first
        stage("hidden states of the validation text")
        text = read_hidden_text(saved, None, "validation", limit, keep=keep, progress=progress)
        say(describe_text(text))
        fitted: dict[str, FittedHead] = {}
        with leaving(lambda: _what_is_kept(fitted, len(chosen))):
            for kind in chosen:
                stage(f"head {len(fitted) + 1} of {len(chosen)}: {kind}")
                settings = head_settings(kind, {})
                fitted[kind], before = fit_once(text, settings, saved, recipe, progress)
                say(
                    f"{kind}: {'already fitted, ' if before else ''}nll "
                    f"{fitted[kind].nll_before:.5f} -> {fitted[kind].nll_after:.5f} nats/token in "
                    f"{fitted[kind].seconds:.1f} s"
                )
            tables = [
                _on_corpus(saved, name, limit, fitted, keep, progress, stage, say) for name in names
            ]
        record = HeadComparisonRecord(
            format=FORMAT,
            version=calibtrain.__version__,
            device=jax.devices()[0].device_kind,
            fitted_on=FittedOn(**fitted_on(saved, None, "validation", limit, text)),
            checkpoint=CheckpointRecord(**checkpoint_of(saved)),
            corpora=tables,
        )
        with saved.writing():
            make_folder(saved.run.heads)
            record.write(saved.run.heads / HEADS_FILE)
            say(f"written: {saved.run.heads / HEADS_FILE}")
        return record.document()


def _what_is_kept(fitted: Mapping[str, FittedHead], wanted: int) -> str:
    if not fitted:
        return "; no head was fitted yet"
    return f"; {len(fitted)} of {wanted} heads are fitted and kept: the same command goes on"


def _kinds(saved: SavedRun, heads: Sequence[str] | None) -> list[str]:
    if heads is not None:
        for kind in heads:
            check_fits_model(head_settings(kind, {}, "--heads"), saved, "--heads")
        return list(dict.fromkeys(heads))
    possible = []
    for kind in HEADS:
        try:
            check_fits_model(head_settings(kind, {}), saved)
        except UserError:
            continue  # as vector scaling with a soft cap, matrix scaling of many entries
        possible.append(kind)
    return possible


def _on_corpus(
    saved: SavedRun,
    corpus: str | None,
    limit: int | None,
    fitted: dict[str, FittedHead],
    keep: bool,
    progress: Progress,
    stage: Callable[[str], None],
    say: Callable[[str], None],
) -> HeadTable:
    name = f"{saved.corpus(corpus).provenance.name}-test"
    stage(f"hidden states of {name}")
    text = read_hidden_text(saved, corpus, "test", limit, keep=keep, progress=progress)
    bins = saved.config.evaluation.bins
    plain = score_text(text, None, None, bins)
    rows = [
        comparison_row(
            "none", plain, None, signature_of(saved, corpus, bins), parameters=0, seconds=0.0
        )
    ]
    for number, (kind, head) in enumerate(fitted.items()):
        stage(f"measuring head {number + 1} of {len(fitted)} on {name}: {kind}")
        began = time.monotonic()
        model, vocab = saved.config.model, saved.tokenizer.vocab_size
        scored = score_text(
            text, make_head(head_settings(kind, {}), model, vocab), head.params, bins
        )
        count = sum(np.size(leaf) for leaf in jax.tree.leaves(head.params))
        about = signature_of(saved, corpus, bins, kind)
        rows.append(
            comparison_row(kind, scored, plain, about, parameters=count, seconds=head.seconds)
        )
        say(f"{kind}: measured on {name} in {time.monotonic() - began:.1f} s")
    provenance = saved.corpus(corpus).provenance
    documents, effective = len(text.documents), plain.effective_documents
    notes = saved.notes(corpus) + document_notes(documents, effective)
    if any(row.get("differences") for row in rows):
        notes.append(ERRORS_COVER)
    noted: dict[str, Any] = {"notes": notes} if notes else {}
    return HeadTable(
        corpus=provenance.name,
        corpus_hash=provenance.content_hash,
        in_domain=provenance.content_hash == saved.corpus(None).provenance.content_hash,
        split="test",
        documents=documents,
        effective_documents=effective,
        limit=limit,
        bins=bins,
        **noted,
        rows=[HeadRow(**each) for each in rows],
    )
