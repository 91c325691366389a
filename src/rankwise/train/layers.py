"""Modules that hold the trained weights of many runs beside one frozen module of the base.

The frozen model only ever sees a batch: the rows of K runs, one run after the other. Each module
here cuts its input into K equal blocks along the first axis and treats block k with the weights
of run k. Not every run trains every module: a module stores weights for its M members alone.

Legend: K selected runs, M members of this module, S members among the selected, N positions
(rows x tokens) of one run, I inputs, O outputs, R the largest rank in this module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rankwise.adapters.adapter import dense_weight
from rankwise.errors import ModelError
from rankwise.train.batch import BatchKey, keep_mask
from rankwise.train.fused import AdaptedLinear


@dataclass
class Selection:
    """Which runs the next batch holds, in this order, and its key; shared by a bank's modules."""

    runs: tuple[int, ...] = ()
    key: BatchKey | None = None


@dataclass(frozen=True)
class Layout:
    """Where the members of a module are among the selected runs.

    Attributes:
        runs: How many runs are selected, K.
        places: The blocks that belong to members, S of them.
        slots: The members' slots in the stacked weights; None: all of them, in order.
        side_by_side: The members' blocks as one slice, where they lie side by side.
    """

    runs: int
    places: tuple[int, ...]
    slots: list[int] | None
    side_by_side: slice | None


class Banked(nn.Module):
    """A frozen module with trained weights for some runs; the selection says which are present.

    Args:
        base: The frozen module; its `weight` and `bias` stay readable here, as some models ask.
        members: The numbers of the runs that train this module, ascending.
        selection: The bank's.
    """

    needs_whole_rows = True  # it cuts its input by runs: `labelled_positions` leaves it alone

    def __init__(self, base: nn.Module, members: Sequence[int], selection: Selection) -> None:
        super().__init__()
        self.base: Any = base
        self.slot_of = {run: slot for slot, run in enumerate(members)}
        self.selection = selection
        self.layouts: dict[tuple[int, ...], Layout] = {}

    def __getattr__(self, name: str) -> Any:
        """What the frozen module has and this one does not: parts that a model reads or ties."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    @property
    def layout(self) -> Layout:
        """That of the runs selected now."""
        runs = self.selection.runs
        if runs not in self.layouts:
            self.layouts[runs] = self._layout(runs)
        return self.layouts[runs]

    def _layout(self, runs: tuple[int, ...]) -> Layout:
        places = tuple(place for place, run in enumerate(runs) if run in self.slot_of)
        slots = [self.slot_of[runs[place]] for place in places]
        adjacent = bool(places) and places[-1] - places[0] + 1 == len(places)
        return Layout(
            len(runs),
            places,
            None if slots == list(range(len(self.slot_of))) else slots,
            slice(places[0], places[-1] + 1) if adjacent else None,
        )

    @property
    def weight(self) -> Tensor:
        """The frozen weight: T5 reads its dtype."""
        weight: Tensor = self.base.weight
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias, if any."""
        bias: Tensor | None = getattr(self.base, "bias", None)
        return bias

    def present(self, stacked_M: Tensor) -> Tensor:
        """The slices of a stacked tensor that belong to the selected members, (S, ...)."""
        slots = self.layout.slots
        return stacked_M if slots is None else stacked_M[slots]

    def blocks(self, x: Tensor) -> Tensor:
        """The input of the selected members, (S, rows, ...), from that of all runs."""
        layout = self.layout
        x_K = x.reshape(layout.runs, x.shape[0] // layout.runs, *x.shape[1:])
        return x_K[list(layout.places) if layout.side_by_side is None else layout.side_by_side]

    def add_to_blocks(self, out: Tensor, delta_S: Tensor) -> Tensor:
        """`out` with `delta_S` added to the blocks of the selected members."""
        layout = self.layout
        delta_S = delta_S.to(out.dtype)
        if len(layout.places) == layout.runs:
            return out + delta_S.reshape(out.shape)
        out_K = out.reshape(layout.runs, -1, *out.shape[1:])
        places_S = torch.tensor(layout.places, device=out.device)
        delta_S = delta_S.reshape(-1, *out_K.shape[1:])
        return out_K.index_add(0, places_S, delta_S).reshape(out.shape)


class BankedLinear(Banked):
    """y = W x + s B A dropout(x) for every member (LoRA, Hu et al. 2021, eq. 3).

    Rows of A and columns of B past a member's own rank are zero, and so are their gradients.
    `start_*` hold the first values of adapters that do not start at zero (PiSSA, OLoRA); their
    product is taken off the frozen weight, as peft does, without changing the shared weight.
    """

    def __init__(
        self,
        base: nn.Module,
        members: Sequence[int],
        selection: Selection,
        shape: tuple[int, int, int],
        number: int,
    ) -> None:
        super().__init__(base, members, selection)
        inputs, outputs, rank = shape
        device = self.base.weight.device
        self.number = number
        self.lora_A = nn.Parameter(torch.zeros(len(members), rank, inputs, device=device))
        self.lora_B = nn.Parameter(torch.zeros(len(members), outputs, rank, device=device))
        self.scaling: Tensor = torch.ones(len(members), 1, 1, device=device)
        self.dropout = [0.0] * len(members)
        self.ranks = [rank] * len(members)
        self.start_A: Tensor | None = None
        self.start_B: Tensor | None = None

    def mask(self, x_SNI: Tensor) -> Tensor | None:
        """The scaled dropout mask of the selected members, or None where nothing is dropped.

        Its first size is 1 where the members share it, else S.
        """
        whole, layout = self.selection.key, self.layout
        slots = range(len(self.dropout)) if layout.slots is None else layout.slots
        chances = [self.dropout[slot] for slot in slots]
        if whole is None or not any(chances):
            return None
        key = whole.of(layout.places)
        rows = len(key.rows[0])
        shape_F = (x_SNI.shape[1] // rows, x_SNI.shape[2])
        return keep_mask(key, self.number, chances, shape_F, x_SNI).flatten(1, 2)

    def product(self, x_SNI: Tensor, a_SRI: Tensor, b_SOR: Tensor) -> Tensor:
        """s B A x for the selected members, (S, N, O)."""
        h_SNR = torch.bmm(x_SNI, a_SRI.to(x_SNI.dtype).mT)
        return torch.bmm(h_SNR, (self.present(self.scaling) * b_SOR).to(x_SNI.dtype).mT)

    def forward(self, x: Tensor) -> Tensor:
        layout = self.layout
        if not layout.places:
            frozen: Tensor = self.base(x)
            return frozen
        a_SRI, b_SOR = self.present(self.lora_A), self.present(self.lora_B)
        x_SNI = self.blocks(x).flatten(1, -2)
        mask_SNI = self.mask(x_SNI)
        if layout.side_by_side is not None and self.start_A is None and _is_plain(self.base):
            weight_OI = self.base.weight if isinstance(self.base, nn.Linear) else self.base.weight.T
            adapted: Tensor = AdaptedLinear.apply(  # type: ignore[no-untyped-call]
                x,
                layout.runs,
                weight_OI,
                self.bias,
                a_SRI,
                b_SOR,
                self.present(self.scaling),
                mask_SNI,
                layout.side_by_side,
            )
            return adapted
        out: Tensor = self.base(x)
        dropped_SNI = x_SNI if mask_SNI is None else x_SNI * mask_SNI
        delta_SNO = self.product(dropped_SNI, a_SRI, b_SOR)
        if self.start_A is not None and self.start_B is not None:
            start_A, start_B = self.present(self.start_A), self.present(self.start_B)
            delta_SNO = delta_SNO - self.product(x_SNI, start_A, start_B)
        return self.add_to_blocks(out, delta_SNO)


def _is_plain(module: Any) -> bool:
    """A product by an ordinary weight: no quantisation, nothing of the model's own around it."""
    plain = type(module) is nn.Linear or type(module).__name__ == "Conv1D"
    return plain and bool(module.weight.is_floating_point())


class BankedDora(BankedLinear):
    """DoRA: y = m / ||W + s B A|| (W x + s B A x) + b (Liu et al. 2024, eq. 5).

    The norm is taken over each output's weights and kept out of the gradient (section 4.3). It
    is had without forming any K x O x I matrix, from ||w||^2 + 2 s b.(A w) + s^2 b'(A A')b.
    As in peft, the part of W x that the magnitude rescales goes through the dropout as well.
    """

    def __init__(
        self,
        base: nn.Module,
        members: Sequence[int],
        selection: Selection,
        shape: tuple[int, int, int],
        number: int,
    ) -> None:
        super().__init__(base, members, selection, shape, number)
        weight_OI = dense_weight(base)
        self.weight_norm2: Tensor = weight_OI.float().square().sum(1)
        self.magnitude = nn.Parameter(self.weight_norm2.sqrt().repeat(len(members), 1))

    def start_magnitude(self) -> None:
        """Set every member's magnitude to the norm that its first factors give: y = W x then."""
        self.magnitude.data.copy_(self.norm())

    def norm(self) -> Tensor:
        """||W + s B A|| of the selected members, (S, O), without gradient.

        Where first factors are taken off the weight, they count as further, negative ranks.
        """
        with torch.no_grad():
            a_SRI, b_SOR = self.present(self.lora_A), self.present(self.lora_B)
            if self.start_A is not None and self.start_B is not None:
                a_SRI = torch.cat([a_SRI, self.present(self.start_A)], dim=1)
                b_SOR = torch.cat([b_SOR, -self.present(self.start_B)], dim=2)
            scaled_SOR = self.present(self.scaling) * b_SOR
            cross_SOR = dense_weight(self.base).to(a_SRI.dtype) @ a_SRI.mT
            gram_SRR = a_SRI @ a_SRI.mT
            own_SO = ((scaled_SOR @ gram_SRR) * scaled_SOR).sum(-1)
            squared = self.weight_norm2 + 2 * (cross_SOR * scaled_SOR).sum(-1) + own_SO
            return squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        if not self.layout.places:
            return out
        x_SNI = self.blocks(x).flatten(1, -2)
        mask_SNI = self.mask(x_SNI)
        d_SNI = x_SNI if mask_SNI is None else x_SNI * mask_SNI
        ratio_S1O = (self.present(self.magnitude) / self.norm()).unsqueeze(1)
        if mask_SNI is None:
            frozen_SNO = self.blocks(out).reshape(len(x_SNI), -1, out.shape[-1])
            frozen_SNO = frozen_SNO if self.bias is None else frozen_SNO - self.bias
        else:
            frozen_SNO = d_SNI @ dense_weight(self.base).to(d_SNI.dtype).mT
        delta_SNO = self.product(d_SNI, self.present(self.lora_A), self.present(self.lora_B))
        if self.start_A is None or self.start_B is None:
            return self.add_to_blocks(out, (ratio_S1O - 1) * frozen_SNO + ratio_S1O * delta_SNO)
        start_A, start_B = self.present(self.start_A), self.present(self.start_B)
        frozen_SNO = frozen_SNO - self.product(d_SNI, start_A, start_B)
        change_SNO = (ratio_S1O - 1) * frozen_SNO + ratio_S1O * delta_SNO
        return self.add_to_blocks(out, change_SNO - self.product(x_SNI, start_A, start_B))


class BankedBias(Banked):
    """A module whose bias is trained; works where the output is linear in it, as it must be."""

    def __init__(
        self, base: nn.Module, members: Sequence[int], selection: Selection, bias_O: Tensor
    ) -> None:
        super().__init__(base, members, selection)
        self.frozen_bias = bias_O
        self.trained_bias = nn.Parameter(bias_O.detach().float().repeat(len(members), 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        if not self.layout.places:
            return out
        delta_SO = self.present(self.trained_bias) - self.frozen_bias.float()
        out_S = self.blocks(out)
        return self.add_to_blocks(
            out, delta_SO.view(-1, *[1] * (out_S.dim() - 2), out.shape[-1]).expand(out_S.shape)
        )


class BankedModule(Banked):
    """Any small module trained in full (a classifier, `modules_to_save`): one copy a member.

    Args:
        base: What runs that are no members use; parts of it may be in the bank themselves.
        members, selection: As in `Banked`.
        whole: The module as the base brought it.
        dtype: Precision of the output that the modules after it expect; None: fp32, in which the
            module is trained and computes.
    """

    def __init__(
        self,
        base: nn.Module,
        members: Sequence[int],
        selection: Selection,
        whole: nn.Module,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(base, members, selection)
        self.dtype = dtype or torch.float32
        self.whole = (whole,)  # a tuple, so that its weights are not counted as this module's
        self.names = [name for name, _ in whole.named_parameters()]
        self.stacked = nn.ParameterList(
            nn.Parameter(p.detach().float().repeat(len(members), *[1] * p.dim()))
            for p in whole.parameters()
        )

    def forward(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
        if more or named:
            raise ModelError(self._misfit("takes more than one input"))
        if not self.layout.places:
            frozen: Tensor = self.base(x)
            return frozen
        weights = {n: self.present(p) for n, p in zip(self.names, self.stacked, strict=True)}
        x_S = self.blocks(x)
        x_S = x_S.float() if x_S.is_floating_point() else x_S
        trained_S: Tensor = torch.vmap(self._call)(weights, x_S).to(self.dtype)
        layout = self.layout
        if len(layout.places) == layout.runs:
            return trained_S.flatten(0, 1)
        out = self.base(x)
        out_K = out.reshape(layout.runs, -1, *out.shape[1:]).to(trained_S.dtype)
        places_S = torch.tensor(layout.places, device=out.device)
        mixed: Tensor = out_K.index_copy(0, places_S, trained_S).flatten(0, 1)
        return mixed

    def _call(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(self.whole[0], dict(weights), (x,))
        if not isinstance(out, Tensor):
            raise ModelError(self._misfit("gives more than one output"))
        return out

    def _misfit(self, what: str) -> str:
        return (
            f"lora.modules_to_save: a {type(self.whole[0]).__name__} {what}, and cannot be trained "
            f"in full for each run of a cohort; name modules inside it"
        )
