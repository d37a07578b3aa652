"""The configuration tree: sections, reading, overrides, hash and JSON schema."""

from calibtrain.config.corpus import CorpusConfig, MarkovConfig
from calibtrain.config.evaluation import EvaluationConfig
from calibtrain.config.finetuning import FinetuningConfig, LoRAConfig
from calibtrain.config.losses import AnyTerm
from calibtrain.config.overridden import overridden, refusal
from calibtrain.config.reading import (
    WAYS_TO_COMPUTE,
    apply_overrides,
    check_effects,
    config_hash,
    json_schema,
    load_config,
    load_study,
    replaced_by,
    resolved_yaml,
    set_path,
    to_yaml,
    validate,
    with_value,
)
from calibtrain.config.section import Section
from calibtrain.config.sections import (
    BatchConfig,
    BudgetConfig,
    CheckpointConfig,
    Config,
    ContextConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RopeScalingConfig,
    TrainConfig,
)
from calibtrain.config.study import ControlsConfig, StudyConfig
from calibtrain.config.temperature import HEADS, TemperatureConfig
from calibtrain.config.tokenizer import TokenizerConfig
from calibtrain.config.yaml_text import parse_yaml, read_text, read_tree, to_tree

__all__ = [
    "HEADS",
    "WAYS_TO_COMPUTE",
    "AnyTerm",
    "BatchConfig",
    "BudgetConfig",
    "CheckpointConfig",
    "Config",
    "ContextConfig",
    "ControlsConfig",
    "CorpusConfig",
    "EvaluationConfig",
    "FinetuningConfig",
    "LoRAConfig",
    "MarkovConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RopeScalingConfig",
    "Section",
    "StudyConfig",
    "TemperatureConfig",
    "TokenizerConfig",
    "TrainConfig",
    "apply_overrides",
    "check_effects",
    "config_hash",
    "json_schema",
    "load_config",
    "load_study",
    "overridden",
    "parse_yaml",
    "read_text",
    "read_tree",
    "refusal",
    "replaced_by",
    "resolved_yaml",
    "set_path",
    "to_tree",
    "to_yaml",
    "validate",
    "with_value",
]
