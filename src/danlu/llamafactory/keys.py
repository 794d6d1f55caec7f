"""LLaMA-Factory's keys, and what each of them is to Danlu: a table, nothing is computed here.

The keys are those that LLaMA-Factory 0.9.5 reads from a training YAML: its model, data, fine-tuning, generation and
training arguments, with what it inherits of transformers' ``Seq2SeqTrainingArguments`` (4.x and 5.x), and those of
its Megatron examples. The page
``docs/from-llamafactory.md`` is made from this table (``scripts/llamafactory_table.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["text", "int", "number", "bool", "texts"]


@dataclass(frozen=True)
class Becomes:
    """A field of the recipe takes the value.

    Attributes:
        field: dotted name in the recipe.
        kind: what the value may be; ``texts`` is a list, or a text with commas.
        renamed: values that have another name in Danlu.
        plain: values that ask for nothing beyond what Danlu does; they set no field.
        note: catalogue key of what is different, or None when nothing is.
    """

    field: str
    kind: Kind
    renamed: Mapping[str | bool, str] = dataclasses.field(default_factory=dict)
    plain: tuple[object, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class NotNeeded:
    """Danlu gets along without it, whatever its value.

    Attributes:
        because: catalogue key of the reason.
    """

    because: str


@dataclass(frozen=True)
class NotBuilt:
    """Something that this version of Danlu cannot do; any value but a plain one is an error.

    Attributes:
        plain: values that ask for nothing beyond what Danlu does; null always does.
        instead: catalogue key of what to do.
    """

    plain: tuple[object, ...] = (False,)
    instead: str = "llamafactory.leave_out"


Key = Becomes | NotNeeded | NotBuilt

MARKS: Final = (
    "model_name_or_path", "adapter_name_or_path", "stage", "finetuning_type", "do_train", "dataset", "dataset_dir",
    "eval_dataset", "template", "cutoff_len", "max_samples", "val_size", "lora_rank", "lora_target",
    "quantization_bit", "per_device_train_batch_size", "gradient_accumulation_steps", "output_dir",
    "overwrite_output_dir", "preprocessing_num_workers", "plot_loss",
)  # fmt: skip
"""Keys that nobody writes into a recipe of Danlu by mistake: one of them makes a file LLaMA-Factory's."""

DIFFERENT: Final = ("train.weight_decay",)
"""Fields that are never ``auto`` and whose default is another than LLaMA-Factory's."""

SECRET: Final = frozenset({
    "hf_hub_token", "ms_hub_token", "om_hub_token", "hub_token", "push_to_hub_token", "swanlab_api_key",
    "swanlab_lark_secret", "swanlab_lark_webhook_url",
})  # fmt: skip
"""Keys whose value is never shown."""

_OPTIMIZERS: Final[Mapping[str | bool, str]] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused"), "adamw"),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"), "adamw_8bit"),
}

_BECOMES: Final[dict[str, Becomes]] = {
    "model_name_or_path": Becomes("model", "text", note="llamafactory.model"),
    "stage": Becomes("objective", "text", renamed={"pt": "pretrain"}, note="llamafactory.other_stage"),
    "finetuning_type": Becomes("method", "text", note="llamafactory.use_lora"),
    "quantization_bit": Becomes("lora.quantization_bit", "int", note="llamafactory.quantization"),
    "report_to": Becomes("report_to", "texts", plain=("none", [], ["none"])),
    "freeze_trainable_layers": Becomes("freeze.layers", "int"),
    "freeze_trainable_modules": Becomes("freeze.modules", "texts", note="llamafactory.freeze_all"),
    "freeze_extra_modules": Becomes("freeze.extra_modules", "texts"),
    "dataset": Becomes("data.train", "texts", note="llamafactory.dataset"),
    "dataset_dir": Becomes("data.train", "text", note="llamafactory.dataset_dir"),
    "max_samples": Becomes("data.max_samples", "int"),
    "eval_dataset": Becomes("data.holdout", "texts", note="llamafactory.one_holdout"),
    "val_size": Becomes("data.holdout", "number", note="llamafactory.say_share"),
    "default_system": Becomes("system", "text"),
    "cutoff_len": Becomes("train.max_length", "int", note="llamafactory.cutoff_len"),
    "adapter_name_or_path": Becomes("lora.adapter", "texts", note="llamafactory.one_adapter"),
    "lora_rank": Becomes("lora.r", "int"),
    "lora_alpha": Becomes("lora.lora_alpha", "number"),
    "lora_dropout": Becomes("lora.lora_dropout", "number"),
    "lora_target": Becomes("lora.target_modules", "texts", renamed={"all": "all-linear"}),
    "use_rslora": Becomes("lora.use_rslora", "bool", plain=(False,)),
    "use_dora": Becomes("lora.use_dora", "bool", plain=(False,)),
    "mask_history": Becomes("data.learn", "bool", renamed={True: "last"}, plain=(False,)),
    "pissa_init": Becomes("lora.init_lora_weights", "bool", renamed={True: "pissa"}, plain=(False,)),
    "loraplus_lr_ratio": Becomes("lora.loraplus_lr_ratio", "number"),
    "per_device_train_batch_size": Becomes("train.batch_size", "int", note="llamafactory.batch_size"),
    "gradient_accumulation_steps": Becomes("train.batch_size", "int", note="llamafactory.batch_size"),
    "learning_rate": Becomes("train.learning_rate", "number"),
    "num_train_epochs": Becomes("train.num_train_epochs", "number", note="llamafactory.epochs_or_steps"),
    "add_tokens": Becomes("new_tokens", "texts", note="llamafactory.add_tokens"),
    "max_steps": Becomes("train.max_steps", "int", plain=(-1, 0)),
    "lr_scheduler_type": Becomes(
        "train.lr_scheduler_type", "text", renamed={"constant_with_warmup": "constant"}, note="llamafactory.scheduler"
    ),
    "warmup_ratio": Becomes("train.warmup_ratio", "number", note="llamafactory.scheduler"),
    "warmup_steps": Becomes("train.warmup_steps", "number", note="llamafactory.steps_or_share"),
    "weight_decay": Becomes("train.weight_decay", "number"),
    "max_grad_norm": Becomes("train.max_grad_norm", "number"),
    "optim": Becomes("train.optim", "text", renamed=_OPTIMIZERS),
    "use_muon": Becomes("train.optim", "bool", renamed={True: "muon"}, plain=(False,)),
    "adafactor": Becomes("train.optim", "bool", renamed={True: "adafactor"}, plain=(False,)),
    "neftune_noise_alpha": Becomes("train.neftune_noise_alpha", "number", plain=(0,)),
    "label_smoothing_factor": Becomes("train.label_smoothing_factor", "number", plain=(0,)),
    "bf16": Becomes("train.dtype", "bool", renamed={True: "bfloat16"}, plain=(False,), note="llamafactory.bf16"),
    "pure_bf16": Becomes(
        "train.dtype", "bool", renamed={True: "bfloat16"}, plain=(False,), note="llamafactory.pure_bf16"
    ),
    "pref_loss": Becomes("objective", "text", note="llamafactory.pref_loss"),
    "pref_beta": Becomes("preference.beta", "number", note="llamafactory.preference"),
    "pref_ftx": Becomes("preference.rpo_alpha", "number", plain=(0,), note="llamafactory.preference"),
    "dpo_label_smoothing": Becomes("preference.label_smoothing", "number", plain=(0,), note="llamafactory.preference"),
    "kto_chosen_weight": Becomes("preference.desirable_weight", "number", note="llamafactory.preference"),
    "kto_rejected_weight": Becomes("preference.undesirable_weight", "number", note="llamafactory.preference"),
    "seed": Becomes("train.seed", "int"),
    "eval_steps": Becomes("eval.every", "number", note="llamafactory.eval_steps"),
    "early_stopping_steps": Becomes("eval.early_stopping", "int", note="llamafactory.early_stopping"),
    "ray_num_workers": Becomes("resources.devices", "int", plain=(1,)),
}

_NOT_NEEDED: Final[dict[str, str]] = {
    "llamafactory.remote_code": "trust_remote_code",
    "llamafactory.template": "template tool_format",
    "llamafactory.thinking": "enable_thinking preserve_thinking",
    "llamafactory.no_padding": """
        packing neat_packing group_by_length train_sampling_strategy length_column_name ignore_pad_token_for_loss""",
    "llamafactory.reads_itself": """
        overwrite_cache preprocessing_num_workers preprocessing_batch_size data_shared_file_system tokenized_path
        streaming buffer_size dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
        dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order remove_unused_columns
        label_names""",
    "llamafactory.run_folder": """
        output_dir overwrite_output_dir save_strategy save_steps save_total_limit save_only_model save_safetensors
        save_on_each_node enable_jit_checkpoint restore_callback_states_from_checkpoint ignore_data_skip""",
    "llamafactory.event_log": """
        logging_dir logging_strategy logging_steps logging_first_step logging_nan_inf_filter log_level
        log_level_replica log_on_each_node disable_tqdm run_name project trackio_space_id trackio_bucket_id
        trackio_static_space_id plot_loss include_num_input_tokens_seen include_tokens_per_second
        include_effective_tokens_per_second print_param_status swanlab_project swanlab_workspace swanlab_run_name
        swanlab_mode swanlab_api_key swanlab_logdir swanlab_lark_webhook_url swanlab_lark_secret""",
    "llamafactory.diagnostics": """
        skip_memory_metrics debug full_determinism enable_torch_profiler profiler_output_dir profiler_wait_steps
        profiler_warmup_steps profiler_active_steps profiler_repeat profiler_record_shapes profiler_profile_memory
        profiler_with_stack profile_modules""",
    "llamafactory.memory": """
        gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing activation_checkpointing_kwargs
        disable_gradient_checkpointing use_reentrant_gc use_unsloth_gc auto_find_batch_size torch_empty_cache_steps
        low_cpu_mem_usage use_cache""",
    "llamafactory.fast_path": """
        flash_attn use_unsloth enable_liger_kernel use_liger_kernel liger_kernel_config use_v1_kernels torch_compile
        torch_compile_backend torch_compile_mode tf32 jit_mode_eval half_precision_backend fp16_backend
        fp16_opt_level""",
    "llamafactory.one_process": """
        ddp_timeout ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend
        local_rank average_tokens_across_devices ray_init_kwargs ray_scope master_addr master_port fsdp_config
        fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap accelerator_config use_cpu no_cuda use_mps_device
        use_ipex tpu_num_cores""",
    "llamafactory.proof": """
        do_eval do_predict predict_with_generate compute_accuracy eval_strategy evaluation_strategy eval_delay
        eval_on_start eval_on_each_dataset per_device_eval_batch_size eval_accumulation_steps eval_num_beams
        eval_do_concat_batches eval_use_gather_object batch_eval_metrics prediction_loss_only include_for_metrics
        include_inputs_for_metrics bf16_full_eval fp16_full_eval sortish_sampler generation_max_length
        generation_num_beams generation_config""",
    "llamafactory.keeps_best": "load_best_model_at_end metric_for_best_model greater_is_better",
    "llamafactory.answering": """
        infer_backend infer_dtype offload_folder use_kv_cache do_sample temperature top_p top_k num_beams max_length
        max_new_tokens repetition_penalty length_penalty skip_special_tokens vllm_maxlen vllm_gpu_util
        vllm_enforce_eager vllm_max_lora_rank vllm_config sglang_maxlen sglang_mem_fraction sglang_tp_size
        sglang_config sglang_lora_backend""",
    "llamafactory.exporting": """
        export_dir export_size export_device export_quantization_bit export_quantization_dataset
        export_quantization_nsamples export_quantization_maxlen export_legacy_format export_hub_model_id""",
    "llamafactory.models_folder": "cache_dir use_fast_tokenizer",
    "llamafactory.token": "hf_hub_token ms_hub_token om_hub_token",
    "llamafactory.no_upload": """
        hub_model_id hub_strategy hub_token hub_private_repo hub_always_push hub_revision push_to_hub_model_id
        push_to_hub_organization push_to_hub_token""",
    "llamafactory.text_only": """
        media_dir image_max_pixels image_min_pixels image_do_pan_and_scan crop_to_patches video_max_pixels
        video_min_pixels video_fps video_maxlen use_audio_in_video audio_sampling_rate freeze_vision_tower
        freeze_multi_modal_projector freeze_language_model""",
    "llamafactory.resizes": "resize_vocab",
    "llamafactory.new_adapter": "create_new_adapter",
    "llamafactory.pissa": "pissa_iter pissa_convert",
    "llamafactory.other_stages": """
        simpo_gamma ppo_buffer_size ppo_epochs ppo_score_norm ppo_target ppo_whiten_rewards reward_model
        reward_model_adapters reward_model_quantization_bit reward_model_type""",
    "llamafactory.switched_off": """
        loraplus_lr_embedding init_special_tokens module_dropout oft_rank oft_block_size oft_target galore_target
        galore_rank galore_update_interval galore_scale galore_proj_type galore_layerwise apollo_target apollo_rank
        apollo_update_interval apollo_scale apollo_proj apollo_proj_type apollo_scale_type apollo_layerwise
        apollo_scale_front badam_mode badam_start_block badam_switch_mode badam_switch_interval badam_update_ratio
        badam_mask_mode badam_verbose asft_alpha eaft_alpha hyper_parallel_args fp8_backend
        fp8_enable_fsdp_float8_all_gather kt_weight_path kt_expert_checkpoint_path kt_use_lora_experts
        kt_lora_expert_num kt_lora_expert_intermediate_size kt_cpu_activation kt_non_expert_weight_path
        megatron_bridge_args bias_activation_fusion apply_rope_fusion moe_grouped_gemm moe_token_dispatcher_type
        use_distributed_optimizer overlap_param_gather overlap_grad_reduce recompute_granularity""",
}

_SWITCHES: Final = """
    split_special_tokens shift_attn upcast_layernorm upcast_lmhead_output train_from_scratch
    disable_shuffling dataloader_drop_last use_galore use_apollo use_badam use_adam_mini use_llama_pro use_mca
    use_hyper_parallel use_megatron_bridge use_dft_loss use_asft_loss use_eaft_loss use_kt fp8"""

_PARALLEL: Final = """
    tensor_model_parallel_size pipeline_model_parallel_size virtual_pipeline_model_parallel_size
    expert_model_parallel_size context_parallel_size hyper_parallel_cp_size sequence_parallel"""

_NOT_BUILT: Final[dict[str, NotBuilt]] = {
    "do_train": NotBuilt((True,), "llamafactory.not_training"),
    "adapter_folder": NotBuilt((), "llamafactory.say_adapter"),
    "model_revision": NotBuilt(("main",), "llamafactory.fetch_revision"),
    "resume_from_checkpoint": NotBuilt((False,), "llamafactory.resume"),
    "fp16": NotBuilt((False,), "llamafactory.say_bf16"),
    "use_swanlab": NotBuilt((False,), "llamafactory.say_report_to"),
    "deepspeed": NotBuilt(("", False), "llamafactory.say_resources"),
    "fsdp": NotBuilt(("", [], False), "llamafactory.say_resources"),
    "parallelism_config": NotBuilt((), "llamafactory.one_machine"),
    **dict.fromkeys(_PARALLEL.split(), NotBuilt((1, False), "llamafactory.one_machine")),
    "push_to_hub": NotBuilt((False,), "llamafactory.upload_yourself"),
    "quantization_method": NotBuilt(("bnb",), "llamafactory.four_bit"),
    "quantization_type": NotBuilt(("nf4",), "llamafactory.four_bit"),
    "double_quantization": NotBuilt((True,), "llamafactory.four_bit"),
    "quantization_device_map": NotBuilt((), "llamafactory.four_bit"),
    "train_on_prompt": NotBuilt((False,), "llamafactory.learns_answers"),
    "mix_strategy": NotBuilt(("concat",), "llamafactory.all_rows"),
    "interleave_probs": NotBuilt((), "llamafactory.all_rows"),
    "adam_beta1": NotBuilt((0.9,)),
    "adam_beta2": NotBuilt((0.999,)),
    "adam_epsilon": NotBuilt((1e-8,)),
    "optim_args": NotBuilt(("",)),
    "optim_target_modules": NotBuilt(()),
    "lr_scheduler_kwargs": NotBuilt(({}, "")),
    "data_seed": NotBuilt(()),
    "additional_target": NotBuilt(("",)),
    "add_special_tokens": NotBuilt((), "llamafactory.say_add_tokens"),
    "new_special_tokens_config": NotBuilt((), "llamafactory.say_add_tokens"),
    "rope_scaling": NotBuilt(()),
    "mixture_of_depths": NotBuilt(()),
    "moe_aux_loss_coef": NotBuilt((0,)),
    **dict.fromkeys(
        ("ref_model", "ref_model_adapters", "ref_model_quantization_bit"),
        NotBuilt((), "llamafactory.own_reference"),
    ),
    "pref_bco_weight": NotBuilt((0,)),
    "ld_alpha": NotBuilt((1,)),
    **dict.fromkeys(_SWITCHES.split(), NotBuilt()),
}


def _not_needed() -> Iterable[tuple[str, Key]]:
    for because, names in _NOT_NEEDED.items():
        for name in names.split():
            yield name, NotNeeded(because)


KEYS: Final[Mapping[str, Key]] = {**_BECOMES, **dict(_not_needed()), **_NOT_BUILT}
"""Every key by name."""
