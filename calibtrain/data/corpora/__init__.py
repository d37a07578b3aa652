"""Where text comes from: documents of a corpus, by split."""
