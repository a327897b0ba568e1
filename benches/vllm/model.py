"""A model small enough for any machine: a random two-layer Llama and a byte-level tokenizer.

The weights are dummies that vLLM makes at start (`--load-format dummy`); nothing is downloaded.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<s>", "</s>", "<unk>", "<pad>"]
CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "scaling pods on queue depth and cache pressure",
    "request waiting running finished token latency histogram bucket",
]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 50, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))

    write(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "model_max_length": 2048,
    })
    write(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": tokenizer.get_vocab_size(),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 3,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    })
    write(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3})


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
