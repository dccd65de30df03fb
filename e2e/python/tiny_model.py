#!/usr/bin/env python3
"""Makes the smallest model that vLLM serves: a random Qwen2 with a byte-level BPE tokenizer and a ChatML-like template.

For the truth test of cache predictions (vllm_cache.py): what it says is noise, but always the same noise, and what it
caches is what any model would. The tokenizer is trained on the sources of Python's standard library, so prompts made of
Python's words come out at three to four bytes a token. Nothing is downloaded. Not for the tests on llama.cpp: those take
a real small model (fetch-engines.sh).
"""

import argparse
import glob
import json
import os
import sysconfig

VOCABULARY = 2048
CONTEXT = 2048
CORPUS_FILES = 150
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = """{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def make_tokenizer():
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # Qwen2's own way of cutting, as the library would put it in place anyway for a model of that type.
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = sorted(glob.glob(os.path.join(sysconfig.get_path("stdlib"), "*.py")))[:CORPUS_FILES]
    tokenizer.train(corpus, trainer)
    return tokenizer


def save_tokenizer(folder):
    make_tokenizer().save(os.path.join(folder, "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "chat_template": TEMPLATE,
    }
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)


def save_weights(folder):
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        bos_token_id=SPECIAL.index("<|endoftext|>"),
        eos_token_id=SPECIAL.index("<|im_end|>"),
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where to; made if missing")
    folder = parser.parse_args().folder
    os.makedirs(folder, exist_ok=True)
    save_tokenizer(folder)
    save_weights(folder)


if __name__ == "__main__":
    main()
