"""Muon for the layers' matrices, Adam for embedding and norms: about half the steps that Adam alone takes here.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"): the momentum of a matrix's
gradient is replaced by the nearest matrix with all singular values near one, found by a Newton-Schulz iteration.
"""
import torch

MATRIX_RATE, OTHER_RATE = 0.01, 2e-3
MOMENTUM = 0.95
WEIGHT_DECAY = 0.02


def orthogonal(g, steps=5):
    """The matrix with g's singular vectors and singular values of about 1; the quintic iteration of the paper."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.t() if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        s = x @ x.t()
        x = a * x + (b * s + c * s @ s) @ x
    return (x.t() if tall else x).float()


class Optimiser:
    """Knows a Network's parameters by name; step(share) moves them by that share of the peak rates."""

    def __init__(self, network):
        inner = {n: p for n, p in network.named_parameters() if p.ndim == 2 and n.startswith("blk.")}
        self.matrices = list(inner.values())
        self.momenta = [torch.zeros_like(p) for p in self.matrices]
        others = [p for n, p in network.named_parameters() if n not in inner]
        self.adam = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)

    @torch.no_grad()
    def step(self, share):
        for p, momentum in zip(self.matrices, self.momenta):
            momentum.lerp_(p.grad, 1 - MOMENTUM)
            update = orthogonal(p.grad.lerp(momentum, MOMENTUM))
            scale = max(1, p.shape[0] / p.shape[1]) ** 0.5
            p.mul_(1 - WEIGHT_DECAY * MATRIX_RATE * share).sub_(update, alpha=MATRIX_RATE * share * scale)
            p.grad = None
        for group in self.adam.param_groups:
            group["lr"] = OTHER_RATE * share
        self.adam.step()
        self.adam.zero_grad()

    def state_dict(self):
        return {"momenta": self.momenta, "adam": self.adam.state_dict()}

    def load_state_dict(self, state):
        for mine, saved in zip(self.momenta, state["momenta"]):
            mine.copy_(saved)
        self.adam.load_state_dict(state["adam"])
