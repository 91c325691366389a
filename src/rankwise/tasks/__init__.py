"""One module a task: how its examples become a batch, and what each row of a batch costs.

Called through `by_name`. Imports spec, data and base; the table of tasks without torch is
`rankwise.spec.tasks`. Legend: N rows of a batch, T tokens of an input, L tokens of a target.
"""
