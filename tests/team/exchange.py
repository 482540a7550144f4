"""What every process of a team of two checks; started by test_ranks.py."""

import torch
from torch import nn

from cryorecon import ranks


def check() -> None:
    me, other = ranks.number(), 1 - ranks.number()
    assert ranks.count() == 2
    assert ranks.leads() == (me == 0)
    assert ranks.own(5) != 5 or me == 0
    assert ranks.mine(torch.arange(5)).tolist() == ([0, 1, 2], [3, 4])[me]

    real, wave = torch.full((2,), 1.0 + me), torch.full((2,), 1j * (1 + me))
    ranks.add_up(real, wave)
    assert real.tolist() == [3.0, 3.0]
    assert wave.tolist() == [3j, 3j]

    rows = ranks.gathered(torch.full((1 + 2 * me, 2), float(me)))
    assert rows[:, 0].tolist() == [0.0, 1.0, 1.0, 1.0]

    table = torch.full((5, 3), -1.0)
    mine = torch.tensor([[0, 3], [4]][me])
    table[mine] = 10.0 + me
    ranks.share_rows(mine, table)
    assert table[:, 0].tolist() == [10.0, -1.0, -1.0, 10.0, 11.0]

    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, float(me))
    ranks.agree(module)
    assert module.weight.detach().abs().sum() == 0

    # a mean over 3 images here and 1 there: the gradient is that of the mean over 4
    dense, sparse = nn.Parameter(torch.zeros(2)), nn.Embedding(6, 1, sparse=True)
    images, weight = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0])][me], [3, 1][me]
    loss = (images * dense[0]).mean() + (sparse(torch.tensor([[0, 1, 2], [5]][me]))[:, 0] * images).mean()
    loss.backward()
    ranks.mean_gradients([dense, sparse.weight], weight)
    assert dense.grad.tolist() == [4.0, 0.0]
    assert sparse.weight.grad.to_dense()[:, 0].tolist() == [0.25, 0.5, 0.75, 0.0, 0.0, 2.5]
    print(f"process {me} with {other}: all exchanged")


if __name__ == "__main__":
    with ranks.joined():
        check()
