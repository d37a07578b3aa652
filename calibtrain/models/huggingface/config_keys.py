"""The keys of a `config.json` that transformers reads for our model types.

Its classes for `llama`, `mistral`, `qwen2` and `qwen3` read few keys. The other keys named here
belong to related models (Gemma, Granite, Cohere, mixtures of experts) or to other programs. A file
that sets one of those was not made for the plain architecture.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from calibtrain.models.huggingface.keys import KeyRules, Neutral, names

_ACTIVATIONS = ("silu", "swish")

CONFIG_KEYS = KeyRules(
    # keys that are used; then keys of transformers, of training, of sampling, of other programs
    harmless=names(
        """
        model_type architectures vocab_size hidden_size intermediate_size num_hidden_layers
        num_attention_heads num_key_value_heads head_dim max_position_embeddings rms_norm_eps
        rope_theta rope_scaling rope_parameters tie_word_embeddings layer_types sliding_window
        max_window_layers original_max_position_embeddings *_token_id *_token_ids

        _name_or_path name_or_path transformers_version _commit_hash torch_dtype dtype use_cache
        pretraining_tp tokenizer_class processor_class attn_implementation _attn_implementation*
        experts_implementation _experts_implementation* output_attentions output_hidden_states
        output_router_logits return_dict return_dict_in_generate output_scores torchscript
        use_bfloat16 tf_legacy_loss id2label label2id num_labels problem_type finetuning_task
        task_specific_params prefix is_decoder tie_encoder_decoder chunk_size_feed_forward
        cache_implementation max_seq_len max_sequence_length seq_length model_max_length
        keys_to_ignore_at_inference is_llama_config _flash_attn_2_enabled use_flash_attn*

        initializer_range *dropout *_pdrop *dropout_prob gradient_checkpointing*
        router_aux_loss_coef label_smoothing* neftune* z_loss*

        max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
        temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
        encoder_no_repeat_ngram_size bad_words_ids num_return_sequences remove_invalid_values
        exponential_decay_length_penalty suppress_tokens begin_suppress_tokens

        unsloth_* transformers.js_config onnx*
        """
    ),
    neutral={
        "auto_map": (),
        "quantization_config": (),
        "quantization": (),
        "compression_config": (),
        "text_config": (),
        "per_layer_config": (),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "use_bias": (False,),
        "bias": (False,),
        "lm_head_bias": (False,),
        "hidden_act": _ACTIVATIONS,
        "hidden_activation": _ACTIVATIONS,
        "activation_function": _ACTIVATIONS,
        "partial_rotary_factor": (1,),
        "rotary_pct": (1,),
        "rope_interleaved": (False,),
        "rope_interleave": (False,),
        "position_embedding_type": ("rope", "rotary"),
        "alibi": (False,),
        "use_mrope": (False,),
        "attn_logit_softcapping": (0,),
        "final_logit_softcapping": (0,),
        "logit_scale": (1,),
        "logits_scaling": (1,),
        "embedding_multiplier": (1,),
        "scale_emb": (1,),
        "residual_multiplier": (1,),
        "lm_head_multiplier": (1,),
        "clip_qkv": (),
        "num_experts": (0,),
        "num_local_experts": (0,),
        "n_routed_experts": (0,),
        "num_experts_per_tok": (0,),
        "is_causal": (True,),
        "use_bidirectional_attention": (False,),
        "is_encoder_decoder": (False,),
        "add_cross_attention": (False,),
        "pruned_heads": ({},),
    },
    computes=re.compile(
        "scal|soft_?cap|multipl|bias|norm|rope|rotary|expert|moe|window|attn|attention|logit|layer|"
        "quant|clip|alibi|head|activation|act_fn|position|mup|residual|embed|conv|causal|mask|lora|"
        "adapter|sparse|ssm|mamba|vision|_config"
    ),
)


def by_architecture(tree: Mapping[str, Any], kind: str, head_size: int) -> dict[str, Neutral]:
    """Returns the neutral values that depend on other keys of a `config.json`."""
    normed = kind == "qwen3"
    slides: dict[str, Neutral] = {
        "use_sliding_window": (False,),
        "sliding_window": lambda value: True,  # only used with use_sliding_window
    }
    if kind == "mistral":
        slides = {"sliding_window": ()}
    elif kind == "llama":  # transformers ignores it; other programs do not
        context = tree.get("max_position_embeddings")
        slides["sliding_window"] = lambda value: (
            type(value) is int and type(context) is int and (value <= 0 or value >= context)
        )
    return {
        **slides,
        "qkv_bias": (kind == "qwen2",),
        "qk_norm": (normed,),
        "use_qk_norm": (normed,),
        "qk_layernorm": (normed,),
        "attention_multiplier": lambda value: _is_near(value, head_size**-0.5),
        "query_pre_attn_scalar": (head_size,),
    }


def _is_near(value: Any, wanted: float) -> bool:
    return type(value) in (int, float) and math.isclose(value, wanted, rel_tol=1e-6)
