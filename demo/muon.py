"""Muon (Jordan et al. 2024) for matrices, Adam (Kingma & Ba 2015) for everything else, and a moving average of all
weights; by one process or by a team of them."""
import torch

from team import Team


def in_memory(p):
    """A convolution's weight as it lies in memory, with the input channels last; other parameters as they are."""
    return p.permute(0, 2, 3, 1) if p.dim() == 4 else p


def back(p):
    return p.permute(0, 3, 1, 2) if p.dim() == 4 else p


def matrix_shape(p):
    """(rows, columns) of what Muon works on; None for vectors, embeddings and very small matrices."""
    if p.dim() < 2 or len(p) > 4096:
        return None
    rows, columns = len(p), p[0].numel()
    return (rows, columns) if min(rows, columns) >= 16 else None


def orthogonal(m):
    """[count, rows, columns] bfloat16, rows <= columns -> about the nearest matrices with orthonormal rows, by five
    steps of a Newton-Schulz iteration (Jordan et al. 2024, Muon)."""
    x = m / (m.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return x


class Muon:
    """Weights and gradients lie end to end; matrices of one shape lie together and are worked on together. A
    convolution's weight counts as a matrix of output channels by everything else.

    Of a team, all processes see the same weights, each has gradients of its own, and each updates a share of the
    weights by everybody's gradients."""

    def __init__(self, parameters, ema_decay, team=None):
        parameters = [p for p in parameters if p.requires_grad]
        shapes = {}
        for p in parameters:
            shapes.setdefault(matrix_shape(p), []).append(p)
        shapes.setdefault(None, shapes.pop(None, []))  # comes last
        count, device = sum(p.numel() for p in parameters), parameters[0].device
        self.team = team or Team()
        self.w, self.m, self.v, self.ema = (self.team.zeros(count, device=device) for _ in range(4))
        self.gradients = self.team.zeros(self.team.size, count, device=device)
        self.squares = self.team.zeros(self.team.size)
        self.step_count, self.ema_decay, self.places, self.groups, at = 0, ema_decay, {}, [], 0
        for shape, group in shapes.items():
            start = at
            for p in group:
                kept = in_memory(p.data)
                self.places[p] = slice(at, at + p.numel()), kept.shape
                self.w[at : at + p.numel()] = kept.reshape(-1)
                p.data = self.view(self.w, p)
                at += p.numel()
            self.groups.append((slice(start, at), shape and (len(group), *shape)))
        self.ema.copy_(self.w)
        self.bind()

    def bind(self):
        """To be called once in each process of a team: where its gradients go, and which share is its own."""
        self.g = self.gradients[self.team.rank]
        for p in self.places:
            p.grad = self.view(self.g, p)
        self.mine, loads = [], [0.0] * self.team.size
        for group in sorted(self.groups, key=cost, reverse=True):
            least = loads.index(min(loads))
            loads[least] += cost(group)
            if least == self.team.rank:
                self.mine.append(group)

    def view(self, flat, p):
        """A parameter's part of one of the long tensors, in the parameter's shape."""
        span, shape = self.places[p]
        return back(flat[span].view(shape))

    def step(self, lr, momentum=0.95, matrix_lr=10.0, clip=1.0):
        """Applies the gradients and clears them; lr is Adam's, the matrices' is matrix_lr times that. Returns the norm
        of the gradients."""
        self.team.meet()
        self.squares[self.team.rank] = sum(float(self.gather(span).square().sum()) for span, _ in self.mine)
        self.team.meet()
        norm = float(self.squares.sum()) ** 0.5
        self.step_count += 1
        ema = min(self.ema_decay, (1 + self.step_count) / (10 + self.step_count))
        for span, shape in self.mine:
            if shape:
                self.muon(span, shape, lr * matrix_lr, momentum)
            else:
                self.adam(span, lr, min(1.0, clip / (norm + 1e-6)))
            self.ema[span].lerp_(self.w[span], 1 - ema)
        self.team.meet()
        self.g.zero_()
        return norm

    def gather(self, span):
        """The mean of everybody's gradients, in the first process's."""
        total = self.gradients[0][span]
        for other in self.gradients[1:]:
            total += other[span]
        return total.div_(self.team.size) if self.team.size > 1 else total

    def muon(self, span, shape, lr, momentum):
        g, m = self.gradients[0][span], self.m[span]
        m.mul_(momentum).add_(g)
        update = (g + momentum * m).view(shape).bfloat16()
        wide = shape[1] <= shape[2]
        update = orthogonal(update) if wide else orthogonal(update.transpose(1, 2).contiguous()).transpose(1, 2)
        gain = max(1.0, shape[1] / shape[2]) ** 0.5
        self.w[span].view(shape).sub_(update.float(), alpha=lr * gain)

    def adam(self, span, lr, scale, beta1=0.9, beta2=0.99):
        """Without weight decay; for what is no matrix."""
        g = self.gradients[0][span] * scale
        m, v = self.m[span].lerp_(g, 1 - beta1), self.v[span]
        v.lerp_(g * g, 1 - beta2)
        size = (v / (1 - beta2**self.step_count)).sqrt_().add_(1e-8)
        self.w[span].addcdiv_(m, size, value=-lr / (1 - beta1**self.step_count))

    def state(self):
        return dict(w=self.w, m=self.m, v=self.v, ema=self.ema, step=self.step_count)

    def load(self, state):
        for name in ("w", "m", "v", "ema"):
            getattr(self, name).copy_(state[name])
        self.step_count = state["step"]

    def average(self, module):
        """The module's state, with the moving average of each weight that is trained; copies."""
        return {name: (self.view(self.ema, p) if p in self.places else p.data).clone()
                for name, p in module.named_parameters()}


def cost(group):
    """About how long an update takes, in any unit: seven products a Newton-Schulz step, or a dozen passes."""
    span, shape = group
    count = span.stop - span.start
    return count * (60 * min(shape[1:]) if shape else 1500)
