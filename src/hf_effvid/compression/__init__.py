"""Compression: which tokens and which blocks count, and whether the answer can be trusted; models with fewer of both.

Names are resolved on first use, so that importing the package costs nothing.
"""

from ..lazy_names import lazy_names


_PUBLIC_NAMES = {
    "BudgetCosts": "budget_calibration",
    "BudgetThresholds": "budget_calibration",
    "CalibrationError": "budget_calibration",
    "MissingPrunerError": "channel_pruning",
    "PruningError": "channel_pruning",
    "calibrate_thresholds": "budget_calibration",
    "FaithfulnessProtocol": "token_faithfulness",
    "OracleError": "oracle_hosts",
    "OracleSettings": "token_importance",
    "TokenFaithfulness": "token_faithfulness",
    "TokenImportance": "token_importance",
    "UncheckableOracleError": "oracle_hosts",
    "UnfaithfulOracleError": "token_faithfulness",
    "measure_faithfulness": "token_faithfulness",
    "oracle_host": "oracle_hosts",
    "oracle_importance": "token_importance",
    "UnsupportedHostError": "host_selection",
    "ALIGNMENT_PRESETS": "alignment",
    "ActivationSparsity": "activation_sparsity",
    "AlignmentSettings": "alignment",
    "boundary_alignment_loss": "alignment",
    "classification_alignment_loss": "alignment",
    "feature_alignment_loss": "alignment",
    "load_fused_lora": "fused_lora",
    "merge_recovery_lora": "recovery",
    "record_block_outputs": "block_outputs",
    "recovery_lora": "recovery",
    "replace_activation": "activation_sparsity",
    "split_fused_lora": "fused_lora",
    "BlockScore": "block_scores",
    "BlockScores": "block_scores",
    "BlockSkip": "block_skip",
    "UndroppableBlockError": "block_table",
    "UnsupportedBlocksError": "block_table",
    "drop_blocks": "block_drop",
    "dropped_state_dict": "block_drop",
    "kept_blocks": "block_table",
    "model_blocks": "block_table",
    "score_blocks": "block_scores",
    "prune_channels": "channel_pruning",
    "select_tokens": "host_selection",
}

__all__, __getattr__, __dir__ = lazy_names(__name__, _PUBLIC_NAMES)
