"""The reference: an arm as people write it, one peft model and a plain loop."""

import copy
from contextlib import contextmanager

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.trainer_pt_utils import LabelSmoother

from rankwise.base.modules import input_embeddings
from rankwise.data.order import rows_at
from rankwise.tasks.by_name import make_batch
from rankwise.train.batch import BatchKey
from rankwise.train.neftune import embedding_noise
from tiny import LENGTH, TASKS


def peft_model(kind, base, lora, **settings):
    """A peft model on a copy of the base, from an arm's own settings and those given instead."""
    fields = {
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "target_modules": _plain(lora.target_modules),
        "exclude_modules": _plain(lora.exclude_modules),
        "layers_to_transform": _plain(lora.layers_to_transform),
        "rank_pattern": dict(lora.rank_pattern),
        "alpha_pattern": dict(lora.alpha_pattern),
        "bias": lora.bias,
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
        "init_lora_weights": lora.init_lora_weights,
        "modules_to_save": _plain(lora.modules_to_save) or None,
        "fan_in_fan_out": kind == "gpt2",
    }
    config = LoraConfig(task_type=TASKS[kind], **fields | settings)
    return get_peft_model(copy.deepcopy(base), config).eval()


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def trained_weights(model):
    """The trained parameters of a peft model, under this project's names."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for part in ("base_model.model.", ".default", ".modules_to_save", ".base_layer"):
                name = name.replace(part, "")
            found[name.replace("magnitude_vector.weight", "magnitude_vector")] = parameter
    return found


def optimizer_of(model, training):
    """The optimizer as transformers' Trainer sets it up, or peft's LoRA+ optimizer."""
    rate, decay = training.learning_rate, training.weight_decay
    if training.loraplus_lr_ratio is not None:
        return create_loraplus_optimizer(
            model,
            torch.optim.AdamW,
            lr=rate,
            loraplus_lr_ratio=training.loraplus_lr_ratio,
            loraplus_weight_decay=decay,
        )
    arguments = TrainingArguments(
        optim=training.optim,
        learning_rate=rate,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        use_cpu=True,
        report_to=[],
    )
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    decayed = set(Trainer.get_decay_parameter_names(None, model))
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return kind(
        [
            {"params": [p for n, p in trained if n in decayed], "weight_decay": decay},
            {"params": [p for n, p in trained if n not in decayed], "weight_decay": 0.0},
        ],
        **settings,
    )


def loss_in_training(model, task, training, batch):
    """The model's own loss, or what transformers' Trainer makes of its logits."""
    if not training.label_smoothing_factor:
        return model(**batch).loss
    labels = batch.pop("labels")
    if task == "SEQ_2_SEQ_LM":
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=labels)
    smoother = LabelSmoother(epsilon=training.label_smoothing_factor)
    return smoother(model(**batch), labels, shift_labels=task == "CAUSAL_LM")


@contextmanager
def noise_in_training(model, training, seed, batches, batch):
    """The rows of these batches, one after the other, with their noise on the input embeddings."""
    alpha, size = training.neftune_noise_alpha, training.per_device_train_batch_size

    def add(module, given, out):
        parts = zip(batches, out.split(size), batch["attention_mask"].split(size), strict=True)
        keys = [BatchKey((seed,), (number,), (tuple(range(size)),)) for number in batches]
        noise = [
            embedding_noise(key, [alpha], mask, out.shape[-1], part)
            for key, (_, part, mask) in zip(keys, parts, strict=True)
        ]
        return out + torch.cat(noise)

    hook = input_embeddings(model.get_base_model()).register_forward_hook(add) if alpha else None
    yield
    if hook is not None:
        hook.remove()


def plain_loop(model, task, training, seed, examples, steps, loss_of=None):
    """Losses of `steps` optimizer steps; `loss_of(model, batch)` where not the model's own."""
    optimizer = optimizer_of(model, training)
    warmup = training.warmup_steps or int(np.ceil(training.warmup_ratio * steps))
    schedule = get_scheduler(
        training.lr_scheduler_type,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        scheduler_specific_kwargs=dict(training.lr_scheduler_kwargs),
    )
    size, parts = training.per_device_train_batch_size, training.gradient_accumulation_steps
    losses = []
    for step in range(steps):
        # One window as one batch: its loss is the mean over all of its targets.
        places = [
            i
            for part in range(parts)
            for i in rows_at(len(examples), size, seed, step * parts + part)
        ]
        batch = vars(make_batch(task, [examples[i] for i in places], 0, LENGTH))
        numbers = range(step * parts, (step + 1) * parts)
        with noise_in_training(model, training, seed, numbers, batch):
            if loss_of is None:
                loss = loss_in_training(model, task, training, batch)
            else:
                loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        if training.max_grad_norm:
            trained = [p for p in model.parameters() if p.requires_grad]
            torch.nn.utils.clip_grad_norm_(trained, training.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return np.array(losses)
