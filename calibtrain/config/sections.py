"""The sections of the configuration tree: every key, its default and the values it may have."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from calibtrain.config.corpus import CorpusConfig
from calibtrain.config.evaluation import EvaluationConfig
from calibtrain.config.finetuning import FinetuningConfig
from calibtrain.config.losses import CROSS_ENTROPY, AnyTerm, BatchTerm
from calibtrain.config.section import Cadence, Count, Fraction, Section, exactly_one
from calibtrain.config.temperature import NoTemperature, TemperatureConfig, check_fits
from calibtrain.config.tokenizer import TokenizerConfig
from calibtrain.config.trackers import Trackers


class ContextConfig(Section):
    """How far back the model sees: in tokens, or in bytes (the same for every vocabulary)."""

    tokens: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Context in tokens."""
    bytes: Annotated[int, Field(ge=8, le=16_777_216)] | None = None
    """Context in bytes of text, converted by the tokenizer's mean bytes per token."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        return exactly_one(self)

    def in_tokens(self, bytes_per_token: float) -> int:
        """Returns the context in tokens, where a token stands for so many bytes on average."""
        if self.tokens is not None:
            return self.tokens
        assert self.bytes is not None
        return max(8, round(self.bytes / bytes_per_token))


class RopeScalingConfig(Section):
    """How rotary frequencies are lowered, for a longer context than that of pre-training."""

    kind: Literal["none", "linear", "llama3"] = "none"
    """none; linear: divide all frequencies by the factor; llama3: only those of long waves."""
    factor: Annotated[float, Field(ge=1.0, le=1e6)] = 1.0
    """Divisor of the frequencies."""
    low_frequency_factor: Annotated[float, Field(ge=1e-3, le=1e6)] = 1.0
    """llama3: waves longer than original_context over this are divided by the whole factor."""
    high_frequency_factor: Annotated[float, Field(ge=1e-3, le=1e6)] = 4.0
    """llama3: waves shorter than original_context over this are left as they are."""
    original_context: Annotated[int, Field(ge=1, le=1_048_576)] = 8192
    """llama3: context of pre-training, in tokens."""

    @model_validator(mode="after")
    def _factors_are_ordered(self) -> Self:
        low, high = self.low_frequency_factor, self.high_frequency_factor
        if self.kind == "llama3" and low >= high:
            raise ValueError(
                f"low_frequency_factor ({low:g}) must be below high_frequency_factor ({high:g})"
            )
        return self


class ModelConfig(Section):
    """The network: a decoder-only transformer or an LSTM."""

    kind: Literal["transformer", "lstm"] = "transformer"
    """Architecture."""
    width: Annotated[int, Field(ge=8, le=65_536)] = 128
    """Width of the residual stream (transformer) or of the hidden state (LSTM)."""
    depth: Annotated[int, Field(ge=1, le=512)] = 4
    """Number of layers."""
    heads: Annotated[int, Field(ge=1, le=1024)] = 4
    """Attention heads (transformer)."""
    kv_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Key and value heads, for grouped-query attention; null means as many as heads."""
    head_size: Annotated[int, Field(ge=2, le=1024, multiple_of=2)] | None = None
    """Width of a head (transformer); null means width over heads."""
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    """Kind of feed-forward layer (transformer)."""
    mlp_ratio: Annotated[float, Field(gt=0.0, le=64.0)] | None = None
    """Feed-forward width over model width; null means 8/3 for swiglu, 4 for gelu."""
    feed_forward_width: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Feed-forward width itself, instead of mlp_ratio."""
    qkv_bias: bool = False
    """Add a bias to queries, keys and values (transformer)."""
    qk_norm: bool = True
    """RMSNorm on queries and keys (transformer)."""
    tied: bool = True
    """Use the embedding as the unembedding."""
    embedding_scale: bool = True
    """Multiply embedded tokens by the square root of width."""
    logit_soft_cap: Annotated[float, Field(ge=1e-3, le=1e6)] | None = None
    """Replace logits by cap * tanh(logits / cap); null means no cap."""
    rope_base: Annotated[float, Field(gt=1.0, le=1e12)] = 10_000.0
    """Base of the rotary frequencies (transformer)."""
    rope_scaling: RopeScalingConfig = RopeScalingConfig()
    norm_epsilon: Annotated[float, Field(ge=1e-12, le=1.0)] = 1e-6
    """Epsilon of RMSNorm."""
    compute: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the layers' arithmetic; auto: bfloat16 on accelerators. Parameters are float32."""
    attention: Literal["auto", "plain", "xla", "cudnn", "splash"] = "auto"
    """Implementation of attention; auto: plain on the CPU, cuDNN on NVIDIA GPUs, Pallas splash on
    TPUs."""
    layers: Literal["auto", "unrolled", "scanned"] = "auto"
    """Compile each layer (unrolled), or one layer in a loop (scanned); auto: scanned where remat
    recomputes, and for deep models on accelerators."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes of a layer: nothing, everything but the products of its
    linear maps (dots), or everything (full). false means none and true means full."""

    @field_validator("remat", mode="before")
    @classmethod
    def _as_a_switch(cls, value: Any) -> Any:
        return {False: "none", True: "full"}[value] if isinstance(value, bool) else value

    @property
    def mlp_width(self) -> int:
        """The feed-forward width as given, or a multiple of 8."""
        if self.feed_forward_width is not None:
            return self.feed_forward_width
        ratio = self.mlp_ratio or (8 / 3 if self.mlp == "swiglu" else 4.0)
        return max(8, math.ceil(self.width * ratio / 8) * 8)

    @property
    def size_of_head(self) -> int:
        """The width of a head."""
        return self.head_size or self.width // self.heads

    @model_validator(mode="after")
    def _one_feed_forward_width(self) -> Self:
        if self.mlp_ratio is not None and self.feed_forward_width is not None:
            raise ValueError(
                f"give feed_forward_width ({self.feed_forward_width}) or mlp_ratio "
                f"({self.mlp_ratio:g}), not both"
            )
        return self

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.kind == "lstm":
            return self
        divided = self.width % self.heads == 0 and (self.width // self.heads) % 2 == 0
        if self.head_size is None and not divided:
            raise ValueError(
                f"width ({self.width}) must be heads ({self.heads}) times an even number"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads ({self.kv_heads}) must divide heads ({self.heads})")
        return self


class BudgetConfig(Section):
    """How long to train, in one of four units."""

    steps: Count | None = None
    """Optimizer steps."""
    tokens: Count | None = None
    """Training tokens."""
    bytes: Count | None = None
    """Bytes of training text, the unit that is fair to every vocabulary."""
    flops: Annotated[float, Field(ge=1.0, le=1e30)] | None = None
    """Training FLOPs (forward and backward, counted analytically)."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        return exactly_one(self)


class BatchConfig(Section):
    """The batch of one optimizer step."""

    rows: Annotated[int, Field(ge=1, le=1_048_576)] = 16
    """Rows of one context each, summed over all devices."""
    accumulate: Literal["auto"] | Annotated[int, Field(ge=1, le=65_536)] = "auto"
    """Micro-batches per step (gradient accumulation); must divide rows. auto: on a CPU, as many as
    give a few thousand tokens each (1 where a loss couples all tokens); elsewhere 1."""

    @property
    def cuts(self) -> int:
        """The number of micro-batches asked for; 1 where the platform decides."""
        return 1 if self.accumulate == "auto" else self.accumulate

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.rows % self.cuts:
            raise ValueError(f"accumulate ({self.accumulate}) must divide rows ({self.rows})")
        return self


class MeshConfig(Section):
    """How devices share the work. It does not change what is trained, and may change later."""

    replica: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Devices, or groups of them, that share the replicas, at most; null means as many as can."""
    data: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Devices that share the rows of a batch; null means all remaining ones."""
    fsdp: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Devices that share the rows of a batch, the parameters and the optimizer state."""


class TrainConfig(Section):
    """How runs are trained together. Each run is what it would be if trained by itself."""

    replicas: Annotated[int, Field(ge=1, le=4_096)] = 1
    """Number of seeds trained by one program, from `seed` on, each a run of its own (`seed=N`)."""


class OptimizerConfig(Section):
    """AdamW and its schedule."""

    learning_rate: Annotated[float, Field(ge=1e-30, le=10.0)] = 3e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """After warm-up: cosine decay; warm-up, stable, decay; or constant."""
    warmup_fraction: Fraction = 0.05
    """Share of the run in which the learning rate rises linearly."""
    decay_fraction: Fraction = 0.2
    """Share of the run, at its end, in which the learning rate falls linearly (wsd)."""
    final_fraction: Fraction = 0.1
    """Final learning rate divided by the peak (cosine, wsd)."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay rate of the first moment."""
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    """Decay rate of the second moment."""
    epsilon: Annotated[float, Field(ge=1e-30, le=1.0)] = 1e-8
    """Epsilon of AdamW."""
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.1
    """Decoupled weight decay of matrices."""
    decay_embeddings: bool = False
    """Decay the embedding and unembedding too. Norms and biases are never decayed."""
    clip_norm: Annotated[float, Field(ge=1e-30, le=1e9)] | None = 1.0
    """Clip the gradient to this global norm; null means no clipping."""

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.schedule == "wsd" and self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError("warmup_fraction + decay_fraction must not exceed 1")
        return self


class CheckpointConfig(Section):
    """When checkpoints are saved."""

    times: Annotated[int, Field(ge=1, le=100_000)] = 4
    """Checkpoints per run, evenly spaced, the last one at the end."""
    every: Cadence | None = None
    """Steps between two checkpoints, instead of `times`; the last one is at the end."""
    minutes: Annotated[float, Field(gt=0.0, le=100_000.0)] | None = 10.0
    """Minutes between two checkpoints, at most; null means that time asks for none. Those that only
    time asked for are removed once there is a newer one."""
    keep: Annotated[int, Field(ge=1, le=100_000)] = 2
    """Number of latest checkpoints that are kept, of those that `times` or `every` ask for."""


class Config(Section):
    """One training run."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of the initial parameters and of the documents' order."""
    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    context: ContextConfig = ContextConfig(tokens=256)
    model: ModelConfig = ModelConfig()
    budget: BudgetConfig = BudgetConfig(bytes=4_000_000)
    batch: BatchConfig = BatchConfig()
    mesh: MeshConfig = MeshConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: tuple[AnyTerm, ...] = CROSS_ENTROPY
    """Terms whose weighted sum is minimised."""
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    temperature: TemperatureConfig = NoTemperature()
    """Temperature head that divides the logits and is trained with the model. Its kind is none,
    global, vector, matrix, low_rank_matrix, position, linear, mlp, adaptive or thermometer."""
    finetune: FinetuningConfig | None = None
    """Train an existing model on examples (calibtrain finetune); null means train from scratch."""
    log_every: Cadence = 10
    """Steps between two lines of training metrics."""
    trackers: Trackers = ()
    """Programs that also get the run's curves: tensorboard, wandb, or sections with their keys."""

    @field_validator("trackers")
    @classmethod
    def _each_once(cls, trackers: Trackers) -> Trackers:
        kinds = [each.kind for each in trackers]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"{', '.join(twice)} is named twice; name each tracker once")
        return trackers

    @field_validator("loss")
    @classmethod
    def _something_to_begin_with(cls, terms: tuple[AnyTerm, ...]) -> tuple[AnyTerm, ...]:
        if any(not isinstance(t, BatchTerm) and t.weight and not t.from_step for t in terms):
            return terms
        raise ValueError(
            "needs a term a token, such as cross_entropy, with a weight above 0 and from_step 0: "
            "losses over a batch only say whether confidences are right, not which token is"
        )

    @model_validator(mode="after")
    def _temperature_fits(self) -> Self:
        check_fits(self.temperature, self.model)
        if getattr(self.temperature, "off_diagonal_penalty", 0.0):
            raise ValueError(
                "temperature.off_diagonal_penalty is for heads that are fitted to a finished run "
                "(calibtrain temperature fit); leave it out of a configuration"
            )
        return self
