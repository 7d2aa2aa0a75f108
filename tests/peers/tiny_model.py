"""Writes a model file for llama.cpp: the shape of a real one, a few hundred kilobytes, with random weights. It speaks
nonsense, but by the real server's real code. Usage: tiny_model.py FILE"""

import sys

import numpy as np
from gguf import GGUFWriter, TokenType

WIDTH, LAYERS, HEADS, HIDDEN, CONTEXT = 64, 2, 4, 128, 4096
WORDS = [" ", " the", " sea", " tide", " comes", " in", " slowly", " and", " lanterns", " at", " dusk", " é", " 🌊", "."]

random = np.random.default_rng(7)


def weights(*shape: int) -> np.ndarray:
    return random.normal(0.0, 0.6, shape).astype(np.float32)


def vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    """Three special tokens, every byte, a space and some words."""
    tokens = [b"<unk>", b"<s>", b"</s>"] + [f"<0x{byte:02X}>".encode() for byte in range(256)]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    for word in WORDS:
        tokens.append(word.replace(" ", "\u2581").encode())
        kinds.append(TokenType.NORMAL)
    return tokens, [0.0] * 259 + [-float(n + 1) for n in range(len(WORDS))], [int(kind) for kind in kinds]


def write(path: str) -> None:
    tokens, scores, kinds = vocabulary()
    out = GGUFWriter(path, "llama")
    out.add_name("tiny")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("llama")
    out.add_token_list(tokens)
    out.add_token_scores(scores)
    out.add_token_types(kinds)
    out.add_unk_token_id(0)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_tensor("token_embd.weight", weights(len(tokens), WIDTH))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_norm", "ffn_norm"):
            out.add_tensor(f"{block}.{name}.weight", np.ones(WIDTH, dtype=np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            out.add_tensor(f"{block}.{name}.weight", weights(WIDTH, WIDTH))
        for name in ("ffn_gate", "ffn_up"):
            out.add_tensor(f"{block}.{name}.weight", weights(HIDDEN, WIDTH))
        out.add_tensor(f"{block}.ffn_down.weight", weights(WIDTH, HIDDEN))
    out.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    # Only words are likely, so that the nonsense is readable. The end hardly ever is: a reply without a word is a failure.
    output = weights(len(tokens), WIDTH)
    output[:3] *= 0.0
    output[3:259] *= 0.1
    out.add_tensor("output.weight", output)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    write(sys.argv[1])
