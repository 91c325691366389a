"""A small causal language model from scratch, the base of the problems `book` and `dialogue`.

    apt-get download jargon-text && dpkg-deb -x jargon-text_*.deb jargon
    python benchmarks/curves/base.py jargon/usr/share/doc/jargon-text/jargon.txt.gz FOLDER

Learns byte-level BPE of 2,048 tokens and a Llama of 4 layers from the Jargon File, which is in the
public domain. The last twentieth of the text is held out. Prints the loss there and the sha256 of
the weights. One thread and a fixed seed: the same machine and versions give the same weights.

Array suffixes: B rows of a batch, T tokens, N tokens of the text.
"""

import argparse
import gzip
import hashlib
import math
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 2048
BLOCK, ROWS = 128, 8
STEPS, WARMUP, PEAK = 1000, 50, 3e-3
HELD_OUT = 0.05
END = "<|endoftext|>"


def read(path: Path) -> tuple[str, str]:
    """The text to learn from, and the text held out; runs of spaces are made one."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    paragraphs = [" ".join(part.split()) for part in raw.decode("utf-8").split("\n\n")]
    kept = [part for part in paragraphs if sum(map(str.isalpha, part)) > len(part) / 2]
    cut = int(len(kept) * (1 - HELD_OUT))
    return "\n".join(kept[:cut]), "\n".join(kept[cut:])


def learn_tokens(text: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the text."""
    tokens = ByteLevelBPETokenizer()
    tokens.train_from_iterator(
        text.split("\n"), vocab_size=VOCABULARY, special_tokens=[END], show_progress=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens._tokenizer, bos_token=END, eos_token=END, pad_token=END
    )


def new_model() -> LlamaForCausalLM:
    """A Llama with random weights, about 2.2 million parameters."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def share_of_peak(step: int) -> float:
    """Linear warmup, then half a cosine down to a tenth."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    done = (step - WARMUP) / (STEPS - WARMUP)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def train(model: LlamaForCausalLM, ids_N: torch.Tensor, seed: int) -> None:
    """AdamW on blocks drawn at random places of the text."""
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)
    model.train()
    for step in range(STEPS):
        starts_B = torch.randint(len(ids_N) - BLOCK, (ROWS,), generator=draws)
        ids_BT = torch.stack([ids_N[start : start + BLOCK] for start in starts_B])
        loss = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            print(f"step {step + 1} of {STEPS}, loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def loss_on(model: LlamaForCausalLM, ids_N: torch.Tensor) -> float:
    """Mean loss by token over whole blocks."""
    model.eval()
    blocks = ids_N[: len(ids_N) // BLOCK * BLOCK].view(-1, BLOCK)
    found = [
        float(model(input_ids=part, labels=part).loss) * len(part)
        for part in torch.split(blocks, 8)
    ]
    return sum(found) / len(blocks)


def make(text: Path, folder: Path, seed: int = 0) -> None:
    """Train the base, save it with its tokenizer, and print what it is."""
    torch.manual_seed(seed)
    learnt, held_out = read(text)
    tokenizer = learn_tokens(learnt)
    ids_N, held_N = (torch.tensor(tokenizer(part)["input_ids"]) for part in (learnt, held_out))
    model = new_model()
    print(f"{len(ids_N):,} tokens, {model.num_parameters():,} parameters", flush=True)
    train(model, ids_N, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    print(f"held-out loss {loss_on(model, held_N):.3f}, model.safetensors sha256 {sha256[:16]}")


def main() -> None:
    """Make the base."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, help="jargon.txt.gz")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    make(options.text, options.folder)


if __name__ == "__main__":
    main()
