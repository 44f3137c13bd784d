"""Trains the demo model and its tokenizer from generated text, on the CPU.

    python demo/train_demo.py --out demo/model

The text comes from make_corpus.py. The number of steps is fixed, and so is the seed, so that two runs see the
same documents in the same order; only the speed of the machine changes how long it takes. The result is a
bfloat16 Llama checkpoint that transformers loads without any code of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import torch
from corpus.conversations import TURN_END, TURN_START, render_chat
from make_corpus import END_OF_TEXT, documents
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB_SIZE = 2048
TOKENIZER_DOCUMENTS = 30_000
ROW_TOKENS = 512
ROWS_PER_STEP = 4
DEFAULT_STEPS = 4000
PEAK_LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
CHECKPOINT_EVERY = 100
QUESTION_WEIGHT = 0.1

# One digit is one piece, so that numbers are read digit by digit; a space sticks to what follows it.
PIECES = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_tokenizer(seed: int) -> Tokenizer:
    """Byte-level BPE over all 256 bytes: any text can be encoded, whatever the corpus holds."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.islice(documents(seed), TOKENIZER_DOCUMENTS), trainer)
    return tokenizer


def is_answer(ids: list[int], tokenizer: Tokenizer) -> list[bool]:
    """Marks the tokens that the model has to get right: the assistant's turns, and all of a plain text."""
    start, end = tokenizer.token_to_id(TURN_START), tokenizer.token_to_id(TURN_END)
    assistant = tokenizer.encode("assistant").ids[0]
    if ids[0] != start:
        return [True] * len(ids)
    marks, answering = [], False
    for token, following in itertools.zip_longest(ids, ids[1:]):
        marks.append(answering)
        if token == start:
            answering = following == assistant
        elif token == end:
            answering = False
    return marks


def packed_rows(tokenizer: Tokenizer, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token rows of whole documents, filled up with -1, and which of the tokens are answers.

    Each row starts with a document, as a prompt does.
    """
    tokens = torch.full((rows, ROW_TOKENS), -1, dtype=torch.int16)
    answers = torch.zeros((rows, ROW_TOKENS), dtype=torch.bool)
    row, used = 0, 0
    stream = documents(seed)
    while True:
        for encoding in tokenizer.encode_batch(list(itertools.islice(stream, 2000))):
            ids = encoding.ids[:ROW_TOKENS]
            if used + len(ids) > ROW_TOKENS:
                row, used = row + 1, 0
            if row == rows:
                return tokens, answers
            tokens[row, used : used + len(ids)] = torch.tensor(ids, dtype=torch.int16)
            answers[row, used : used + len(ids)] = torch.tensor(is_answer(ids, tokenizer))
            used += len(ids)


def new_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=[tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)],
        pad_token_id=tokenizer.token_to_id(END_OF_TEXT),
    )
    return LlamaForCausalLM(config)


def learning_rate(step: int, steps: int) -> float:
    """A short warm-up, then a cosine down to a twentieth of the peak."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return PEAK_LEARNING_RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


class Optimizers:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        inner = [p for p in model.model.layers.parameters() if p.dim() == 2]
        known = {id(p) for p in inner}
        rest = [p for p in model.parameters() if id(p) not in known]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(inner, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, weight_decay=0.0, betas=(0.9, 0.95)),
        ]

    def step(self, rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad()

    def state_dict(self) -> list[dict[str, object]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def batch_loss(model: LlamaForCausalLM, tokens: torch.Tensor, answers: torch.Tensor, bf16: bool) -> torch.Tensor:
    """Loss over all tokens, in which the tokens of questions, partly chance, count little."""
    tokens = tokens.long()
    weights = torch.where(answers, 1.0, QUESTION_WEIGHT) * (tokens >= 0)
    tokens = tokens.where(tokens >= 0, model.config.pad_token_id)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def write_checkpoint(
    path: Path, step: int, model: LlamaForCausalLM, optimizer: Optimizers, losses: list[float]
) -> None:
    """Written beside and then renamed, so that a run that is killed while writing leaves the older one."""
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def read_checkpoint(path: Path, model: LlamaForCausalLM, optimizer: Optimizers) -> tuple[int, list[float]]:
    """The number of steps already done and their losses; the model and the optimizer are set to that point."""
    if not path.exists():
        return 0, []
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["losses"]


def train(
    model: LlamaForCausalLM,
    data: tuple[torch.Tensor, torch.Tensor],
    steps: int,
    bf16: bool,
    checkpoint: Path | None,
) -> float:
    """Trains in place, prints progress every 50 steps, returns the mean loss of the last 100 steps."""
    optimizer = Optimizers(model)
    model.train()
    done, losses = read_checkpoint(checkpoint, model, optimizer) if checkpoint else (0, [])
    start = time.monotonic()
    tokens, answers = (part.view(steps, ROWS_PER_STEP, ROW_TOKENS) for part in data)
    for step in range(done, steps):
        loss = batch_loss(model, tokens[step], answers[step], bf16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(learning_rate(step, steps))
        losses.append(loss.item())
        if step % 50 == 49:
            report(step + 1, steps, losses[-50:], (time.monotonic() - start) / (step + 1 - done))
        if checkpoint and (step + 1) % CHECKPOINT_EVERY == 0:
            write_checkpoint(checkpoint, step + 1, model, optimizer, losses)
    return sum(losses[-100:]) / len(losses[-100:])


def report(step: int, steps: int, losses: list[float], seconds_per_step: float) -> None:
    speed = ROWS_PER_STEP * ROW_TOKENS / seconds_per_step
    eta = seconds_per_step * (steps - step) / 60
    print(
        f"step {step}/{steps}  loss {sum(losses) / len(losses):.4f}  {speed:,.0f} tokens/s  eta {eta:.1f} min",
        flush=True,
    )


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Writes the checkpoint in bfloat16, with the tokenizer files and the chat template."""
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START],
        clean_up_tokenization_spaces=False,
        model_max_length=model.config.max_position_embeddings,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    check_chat_template(wrapped)
    wrapped.save_pretrained(out)
    # transformers 5 writes its own class name there; other readers know this older one, and so does it.
    rewrite_json(
        out / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE},
    )
    ends = {"eos_token_id": model.config.eos_token_id, "pad_token_id": model.config.pad_token_id}
    (out / "generation_config.json").unlink(missing_ok=True)
    rewrite_json(out / "generation_config.json", {"do_sample": False, **ends})
    # safetensors makes a file that only its owner reads.
    (out / "model.safetensors").chmod(0o644)


def rewrite_json(path: Path, changes: dict[str, object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content.update(changes)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """The model must be asked in exactly the form in which it was trained."""
    messages = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi!"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    if rendered != render_chat(messages):
        raise AssertionError(f"the chat template writes {rendered!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--checkpoint", type=Path, help="file to save to on the way and to continue from")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16 autocast (faster on old processors)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    start = time.monotonic()
    tokenizer = train_tokenizer(options.seed)
    data = packed_rows(tokenizer, options.steps * ROWS_PER_STEP, options.seed + 1)
    model = new_model(tokenizer)
    print(
        f"{model.num_parameters():,} parameters, vocabulary {tokenizer.get_vocab_size()}, "
        f"{int((data[0] >= 0).sum()):,} training tokens, text ready after {time.monotonic() - start:.0f} s",
        flush=True,
    )
    loss = train(model, data, options.steps, not options.fp32, options.checkpoint)
    save(model, tokenizer, options.out)
    print(
        f"final loss {loss:.4f}, {(time.monotonic() - start) / 60:.1f} min, saved to {options.out}",
        flush=True,
    )


if __name__ == "__main__":
    main()
