"""Where texts and vocabularies came from, with their hashes."""

from collections.abc import Sequence
from typing import Any

from calibtrain.report.cells import code, num, prose, row_head, table, td, th
from calibtrain.report.display import count, text_bytes
from calibtrain.report.results import Run


def corpus_table(runs: Sequence[Run]) -> str:
    """Every corpus that was trained on, with its hash and the size of its splits."""
    corpora = list({run.corpus.content_hash: run.corpus for run in runs}.values())
    splits = list(dict.fromkeys(name for c in corpora for name in c.splits))
    rows = [
        [
            row_head(c.name),
            prose(c.source),
            td(c.version),
            code(c.content_hash, shorten=16),
            *(_split_cell(c.splits.get(name)) for name in splits),
        ]
        for c in corpora
    ]
    head = [th("Corpus"), th("Source"), th("Version"), th("Content hash")]
    sizes = [th(name.capitalize(), "documents, bytes", numeric=True) for name in splits]
    return table("Text", [*head, *sizes], rows)


def _split_cell(split: Any) -> str:
    if split is None:
        return '<td class="num">–</td>'
    return num(split.bytes, f"{count(split.documents)}, {text_bytes(split.bytes)}")


def tokenizer_table(runs: Sequence[Run]) -> str:
    """Every vocabulary, with its hash."""
    kinds = list({run.tokenizer.hash: run.tokenizer for run in runs}.values())
    rows = [
        [
            row_head(t.kind),
            num(t.vocab_size, count(t.vocab_size)),
            num(
                t.bytes_per_token, "–" if t.bytes_per_token is None else f"{t.bytes_per_token:.3f}"
            ),
            code(t.hash, shorten=16),
        ]
        for t in sorted(kinds, key=lambda t: (t.kind, t.vocab_size))
    ]
    head = [th("Tokenizer"), th("Vocabulary", "tokens", numeric=True)]
    return table("Vocabularies", [*head, th("Bytes a token", numeric=True), th("Hash")], rows)
