"""Several processes that work on one run, as ``torchrun`` starts them; to one alone all this is nothing.

Every process holds the whole model and goes through the same steps with its own share of each batch; sums over images are then
added up. Who calls a function that exchanges something must do so in all processes, in the same order, on one thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

from cryorecon.errors import InputError
from cryorecon.launch import launched

PATIENCE = timedelta(hours=2)  # for a process that reads or writes while others wait
MEETING = timedelta(minutes=5)  # for all of them to come; nothing but a kill ends this waiting before
STRIDE = 7_777_777  # between the random streams of two processes


@contextmanager
def joined() -> Iterator[None]:
    """Within, the processes that were started together are a team; of a single one nothing changes.

    Raises
    ------
    InputError: they don't find each other.
    """
    if launched() == 1 or distributed.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, own_number, size = next(iter(distributed.rendezvous("env://", timeout=MEETING)))
        distributed.init_process_group(backend, store=store, rank=own_number, world_size=size, timeout=PATIENCE)
        store.set_timeout(PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"expected {launched()} processes that find each other, as torchrun starts them, found: "
                         f"{str(error).splitlines()[0]}") from None
    try:
        yield
        distributed.barrier()  # what one writes last, the others may read
    finally:
        distributed.destroy_process_group()


def count() -> int:
    """Processes in the team."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def number() -> int:
    """The place of this one among them, from 0."""
    return distributed.get_rank() if count() > 1 else 0


def leads() -> bool:
    """Whether this is the one that writes and speaks."""
    return number() == 0


def wait() -> None:
    """Go on when all processes have come here: what one has written, the others may read."""
    if count() > 1:
        distributed.barrier()


def own(seed: int) -> int:
    """A seed of this process's own: for draws that belong to images, of which each process has others."""
    return seed + STRIDE * number()


def mine(items: Tensor) -> Tensor:
    """The share of this process of a batch's ``items (n,)``."""
    return items if count() == 1 else items.tensor_split(count())[number()]


def add_up(*sums: Tensor) -> None:
    """Make each tensor the sum of all processes' ones, in place."""
    if count() > 1:
        for each in sums:
            distributed.all_reduce(torch.view_as_real(each) if each.is_complex() else each)


def agree(module: nn.Module) -> None:
    """Give every process the first one's parameters and saved buffers: equal sums may still be solved differently by unlike
    processors, an eigenvector's sign for one."""
    if count() > 1:
        with torch.no_grad():
            for each in module.state_dict().values():
                distributed.broadcast(torch.view_as_real(each) if each.is_complex() else each, 0)


def gathered(rows: Tensor) -> Tensor:
    """All processes' rows, of any number each, in the order of the processes."""
    if count() == 1:
        return rows
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(count())]
    distributed.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    most = max(int(size) for size in sizes)
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(count())]
    distributed.all_gather(parts, padded)
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])


def share_rows(index: Tensor, *tables: Tensor) -> None:
    """Exchange what each process has put in the rows ``index`` of tables ``(n, ...)``, in place; no row is two processes'."""
    if count() > 1:
        everyone = gathered(index)
        for table in tables:
            table[everyone] = gathered(table[index])


def mean_gradients(parameters: list[nn.Parameter], weight: int) -> None:
    """Make gradients of means over this process's ``weight`` images those of the mean over all processes' images, in place."""
    if count() == 1:
        return
    graded = [p for p in parameters if p.grad is not None]
    device = parameters[0].device
    total = torch.tensor([float(weight)], device=device)
    add_up(total)
    share = weight / float(total)
    dense = [p.grad for p in graded if p.grad is not None and not p.grad.is_sparse]
    if dense:
        flat = torch.cat([gradient.flatten() for gradient in dense]) * share
        add_up(flat)
        for gradient, part in zip(dense, flat.split([g.numel() for g in dense]), strict=True):
            gradient.copy_(part.view_as(gradient))
    for parameter in graded:
        rows = parameter.grad
        if rows is not None and rows.is_sparse:
            rows = rows.coalesce()
            index, values = gathered(rows.indices()[0]), gathered(rows.values() * share)
            parameter.grad = torch.sparse_coo_tensor(index[None], values, rows.shape, check_invariants=False)
