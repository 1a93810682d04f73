"""A class that makes three parameters of one stored tensor: Jina v3's query, key and value."""

CONFIG = {
    "architectures": ["JinaEmbeddingsV3Model"],
    "model_type": "jina_embeddings_v3",
    "dtype": "bfloat16",
    "hidden_size": 48,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
    "num_attention_heads": 6,
    "num_hidden_layers": 1,
    "type_vocab_size": 1,
    "vocab_size": 101,
}
