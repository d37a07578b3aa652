"""Models of others as runs, and runs as models of others: import and export.

Folders as transformers reads and writes them, and GGUF files. See docs/huggingface.md.
"""

from calibtrain.interchange.exported import export_run
from calibtrain.interchange.imported import import_model

__all__ = ["export_run", "import_model"]
