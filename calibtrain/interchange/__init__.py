"""Imports Hugging Face folders and GGUF files as runs, and exports runs as Hugging Face folders.

`docs/huggingface.md` describes what is supported.
"""

from calibtrain.interchange.exported import export_run
from calibtrain.interchange.imported import import_model

__all__ = ["export_run", "import_model"]
