"""Parameters beside buffers, and configs that their shapes follow."""

from __future__ import annotations

LLAMA = {"hidden_size": 4096, "num_attention_heads": 32, "max_position_embeddings": 131_072}
CLIP = {"vision_config": {"hidden_size": 1280, "num_heads": 16}}
POSITIONS = {
    "bert.embeddings.position_embeddings.weight": (512, 768),
    "layoutlmv3.pos_embed": (1, 197, 768),
    "owlvit.vision_model.embeddings.position_embedding.weight": (577, 768),
    "vision_model.positional_embedding_vlm": (577, 1408),
    "decoder.model.decoder.layer_norm.weight": (1024,),
    "swin.relative_position_bias_table": (529, 4),
    "model.language_model.layers.2.self_attn.q_norm.weight": (512,),
    "vision_model.connector.fine.projection.weight": (1024, 768 * 3 * 3),
    "levit.stages.0.module.attention_biases": (4, 196),
    "rel_bias_module.pos_proj.weight": (12, 64, 1, 1),
    "model.encoder.conformer_layers.0.self_attn.linear_out.weight": (384, 384),
}
SAM_3 = {"image_size": 1008, "patch_size": 14, "window_size": 24, "global_attn_indexes": [7, 15]}
SAM_2 = {
    "memory_attention_rope_feat_sizes": [64, 48],
    "memory_attention_rope_k_sizes": [16, 16],
    "memory_attention_hidden_size": 256,
    "memory_attention_downsample_rate": 1,
    "memory_attention_num_attention_heads": 2,
    "vision_config": {"hidden_size": 144, "num_attention_heads": 4},
}
SEAMLESS = {"hidden_size": 1024, "max_position_embeddings": 4096, "t2u_max_position_embeddings": 2048}
ZOE = {"bin_configurations": [{"name": "nyu", "n_bins": 64}, {"name": "kitti", "n_bins": 32}]}
LLAMA_4, SWIN = {"vision_config": {"num_attention_heads": 16}}, {"backbone_config": {"window_size": 7}}


def reader(config):
    def read(path):
        at = config
        for part in path.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        return at

    return read
