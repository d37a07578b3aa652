"""Exports a run as a folder that transformers loads: weights, tokenizer, and a model card."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from calibtrain.config import ModelConfig
from calibtrain.errors import UserError
from calibtrain.interchange.model_card import MODEL_CARD, model_card
from calibtrain.interchange.pretrained import CONFIG, require_packages, require_utf8, scaled
from calibtrain.interchange.tokenizer_files import tokenizer_files
from calibtrain.models import Params
from calibtrain.models.huggingface.architecture import is_tied_outside, write_architecture
from calibtrain.models.huggingface.names import (
    EMBEDDING,
    UNEMBEDDING,
    is_turned,
    names_of,
    parameter_paths,
)
from calibtrain.models.huggingface.safetensors_folder import WEIGHTS
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.latest_checkpoint import latest_step, load_merged_params
from calibtrain.storage.disk import disk_error_in, disk_errors, make_folder
from calibtrain.storage.places import place


def export_run(run: Path, path: Path) -> dict[str, Any]:
    """Writes the latest checkpoint of a run as a Hugging Face folder, whole or not at all.

    Low-rank adapters of a fine-tuning are merged into the matrices that they adapt.

    Args:
        run: the run folder.
        path: folder to make; it must not exist, or be empty.

    Returns:
        The path, the architecture, the files, and notes on what the files cannot express.

    Raises:
        UserError: where the run has no checkpoint, or has its own temperature head; where the
            format cannot express its model; or where the folder cannot be made.
    """
    require_packages()
    require_utf8(path)
    folder = RunFolder(place(run))
    config = folder.read_config()
    if config.temperature.kind != "none":
        raise UserError(
            f"{run}: was trained with a temperature head (temperature.kind: "
            f"{config.temperature.kind}), and transformers has none; what can be written: a run "
            "without one"
        )
    with folder.locked_to_read():
        latest_step(folder)  # a missing checkpoint is reported first
        tokenizer = folder.read_tokenizer()
        summary = folder.require_summary()
        context = (summary.imported or {}).get("context") or summary.context_tokens
        tree = write_architecture(
            config.model,
            tokenizer.vocab_size,
            context,
            bos=tokenizer.bos_id,
            eos=tokenizer.eos_id,
        )
        step, params = load_merged_params(folder)
    files, notes = tokenizer_files(tokenizer, context)
    if tree["model_type"] == "qwen2":
        notes.append(
            "AutoTokenizer splits the text of every model of type qwen2 as Qwen 2 does, whatever "
            "its tokenizer.json says: load the tokenizer with PreTrainedTokenizerFast"
        )
    architecture = tree["architectures"][0]
    card = model_card(folder, step, architecture, context, notes)
    contents = {CONFIG: _json(tree), MODEL_CARD: card.encode(), **files}
    tensors = exported_tensors(config.model, params)

    def fill(inside: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        for name, content in contents.items():
            (inside / name).write_bytes(content)
        try:
            save_file(tensors, inside / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise disk_error_in(error) from None
        (inside / WEIGHTS).chmod(0o644)  # the library makes it readable for its owner only

    _make(path, fill)
    return {
        "path": str(path),
        "step": step,
        "architecture": architecture,
        "parameters": sum(array.size for array in tensors.values()),
        "files": sorted([*contents, WEIGHTS]),
        "notes": notes,
    }


def exported_tensors(model: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """Returns the parameters under the names of transformers.

    transformers does not scale embeddings. So the embedding is written scaled, to the bit as the
    model uses it, and a table that is also the unembedding is then written twice.
    """
    tensors = {}
    for path, leaf in parameter_paths(params):
        array = np.asarray(leaf, np.float32)
        # contiguous, because the memory is written as it lies, regardless of strides
        tensors[names_of(path).huggingface] = np.ascontiguousarray(
            array.T if is_turned(path) else array
        )
    table = tensors[EMBEDDING.huggingface]
    if model.embedding_scale:
        tensors[EMBEDDING.huggingface] = scaled(table, model.width)
        if model.tied:
            tensors[UNEMBEDDING.huggingface] = table
    assert is_tied_outside(model) == (UNEMBEDDING.huggingface not in tensors)
    return tensors


def _json(tree: Any) -> bytes:
    return (json.dumps(tree, indent=2, ensure_ascii=False) + "\n").encode()


def _make(path: Path, fill: Any) -> None:
    """Fills a temporary folder and renames it to `path`."""
    with disk_errors(path):
        path = path.resolve()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path}: is there already; name a folder that is not")
        make_folder(path.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
        try:
            fill(temporary)
            temporary.chmod(0o755)
            temporary.rename(path)  # replaces an empty folder
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
