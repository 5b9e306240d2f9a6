"""The authors' step restated in PyTorch from its equations, to be timed against.

It gathers every image's K neighbors and compares each prediction with the candidates of
all images, b x b(K+1) numbers. The benchmarks alone use it; the package never does.
"""

from __future__ import annotations

import torch


def search_and_loss(
    keys: torch.Tensor,
    prediction: torch.Tensor,
    anchor: torch.Tensor,
    target: torch.Tensor,
    *,
    k: int,
    temperature: float,
) -> torch.Tensor:
    """Returns the soft cross-entropy of one direction, a mean over the batch.

        w_ik = softmax_k(y_i . c_ik),  w_i0 = 1
        L_i  = -sum_{k=0..K} w_ik log softmax(z_i . candidates / tau)_ik

    Args:
      keys: (q, d) unit rows, the queue.
      prediction: (b, d) unit rows z.
      anchor: (b, d) unit rows y; the gradient flows through w into it.
      target: (b, d) unit rows t, without gradient.
      k: K, the neighbors of each image.
      temperature: tau of the loss; the attention has none.
    """
    batch, dim = target.shape
    row = torch.topk(target @ keys.T, k, dim=1).indices
    neighbors = keys[row]
    weights = torch.softmax(torch.einsum("bd,bkd->bk", anchor, neighbors), dim=1)
    candidates = torch.cat([target[:, None], neighbors], dim=1)
    logits = prediction @ candidates.view(-1, dim).T / temperature
    log_share = torch.log_softmax(logits, dim=1).view(batch, batch, k + 1)
    image = torch.arange(batch)
    own = log_share[image, image]
    return -(own[:, 0] + (weights * own[:, 1:]).sum(dim=1)).mean()
