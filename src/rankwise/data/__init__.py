"""Rows become examples: read, split, augmented, tokenised, put into batches. NumPy only, no torch.

The order is fixed, because each step protects the next: `read_rows`, then `split_rows` (rows that
cannot be used are left out, held-out rows that repeat a training row are removed), and only then
augmentation of the training part and tokens (`make_examples`, `train_examples`).
"""
