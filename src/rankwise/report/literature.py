"""What the literature reports on each setting, in a sentence with its source.

`expects` is the direction from a smaller (or absent) to a larger (or present) value that the source
reports: "better", "same", or None where it reports neither or sources disagree. The guide compares
studies with it and reports differences.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One finding of one source on one setting."""

    text: str
    source: str
    expects: Literal["better", "same"] | None = None


HU = "Hu et al. 2021, LoRA, arXiv:2106.09685"
DETTMERS = "Dettmers et al. 2023, QLoRA, arXiv:2305.14314"
BIDERMAN = "Biderman et al. 2024, LoRA Learns Less and Forgets Less, arXiv:2405.09673"
RSLORA = "Kalajdzievski 2023, rsLoRA, arXiv:2312.03732"

FINDINGS: dict[str, tuple[Finding, ...]] = {
    "learning_rate": (
        Finding(
            "LoRA is sensitive to it, and its best value lies about ten times above that of full "
            "fine-tuning.",
            BIDERMAN,
        ),
    ),
    "r": (
        Finding(
            "On GPT-3 ranks of 1 to 4 on the query and value projections were already "
            "competitive; more rank gained little.",
            f"{HU}, section 7.2",
            "same",
        ),
        Finding(
            "With the usual scaling by alpha/r a larger rank learns more slowly; scaled by "
            "alpha/sqrt(r), larger ranks do improve.",
            RSLORA,
        ),
        Finding(
            "On code and mathematics, low ranks fall short of full fine-tuning and higher ones "
            "narrow the gap.",
            BIDERMAN,
        ),
    ),
    "lora_alpha": (
        Finding(
            "With Adam, changing it does roughly what changing the learning rate does, so it can "
            "be left at its first value.",
            f"{HU}, section 4.1",
        ),
    ),
    "lora_dropout": (
        Finding(
            "0.05 helped models of 7 and 13 billion parameters, not those of 33 and 65.",
            f"{DETTMERS}, appendix A",
        ),
    ),
    "target_modules": (
        Finding(
            "At one parameter budget, query and value together did better than either alone at a "
            "higher rank.",
            f"{HU}, section 7.1",
        ),
        Finding(
            "Adapters on all linear layers of the blocks were needed to reach full fine-tuning; "
            "the rank mattered little.",
            f"{DETTMERS}, section 4",
        ),
    ),
    "quantization": (
        Finding("NF4 reached the quality of 16-bit fine-tuning.", f"{DETTMERS}, section 4", "same"),
    ),
    "use_rslora": (Finding("Larger ranks improve the result.", RSLORA, "better"),),
    "use_dora": (
        Finding(
            "Better than LoRA at the same rank on reasoning and instruction tasks.",
            "Liu et al. 2024, DoRA, arXiv:2402.09353",
            "better",
        ),
    ),
    "loraplus_lr_ratio": (
        Finding(
            "A larger learning rate for B than for A gains one to two percent and learns faster.",
            "Hayou et al. 2024, LoRA+, arXiv:2402.12354",
            "better",
        ),
    ),
    "init_lora_weights": (
        Finding(
            "Starting from the principal components of the weights (pissa) converged faster and "
            "ended better than the usual start.",
            "Meng et al. 2024, PiSSA, arXiv:2404.02948",
        ),
    ),
    "strategy": (
        Finding(
            "Ranks given to layers by importance did better than uniform ones at one budget, most "
            "of all at small budgets.",
            "Zhang et al. 2023, AdaLoRA, arXiv:2303.10512",
        ),
    ),
    "method": (
        Finding(
            "On code and mathematics full fine-tuning learned more and forgot more than LoRA.",
            BIDERMAN,
        ),
    ),
    "factor": (
        Finding(
            "Word-level augmentation helped with few training rows and little with many.",
            "Wei and Zou 2019, EDA, arXiv:1901.11196",
        ),
    ),
    "bias": (
        Finding(
            "Training the biases alone came close to full fine-tuning of BERT on small data; that "
            "is not the same as adding them to LoRA.",
            "Ben Zaken et al. 2021, BitFit, arXiv:2106.10199",
        ),
    ),
}

ALIASES = {
    "rank": "r",
    "lora_r": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "lr": "learning_rate",
    "scheduler": "lr_scheduler_type",
    "lr_scheduler": "lr_scheduler_type",
    "targets": "target_modules",
}
"""Column names of outside results -> the name used here."""


def setting_key(name: str) -> str:
    """The last part of a dotted setting, in the one spelling used here."""
    leaf = name.rpartition(".")[2]
    return ALIASES.get(leaf, leaf)
