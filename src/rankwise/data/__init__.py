"""From rows to examples: read, split, augmented, tokenised, put into batches. NumPy, no torch.

May import spec, files, text, errors. The order of the steps is fixed: `read_rows`, then
`split_rows` (rows that cannot be used are left out, held-out rows that repeat a training row are
removed), and only then augmentation of the training part and tokens (`make_examples`,
`train_examples`). Splitting comes first, so that no copy of a held-out row gets into training.
"""
